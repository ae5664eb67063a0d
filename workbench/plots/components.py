"""Figure of the parts of a margin, as a waterfall: each begins where the one before ends."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    VERMILLION,
    escaped,
    hover,
    rounded,
    styled,
)

COLOURS = {
    "bias": VERMILLION,
    "output_bias": VERMILLION,
    "prior": ORANGE,
    "feedforward_out": GREEN,
    "embedding": GREY,
}
MOST = 32  # rows; the smallest parts of a deeper model share one


def components(ds: xr.Dataset) -> go.Figure:
    """Draw the mean parts of margins with their intervals, in order; the last row is their sum.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name, or of `diagnostics.mean_parts`.
    """
    means = ds["mean"].values.astype(float)
    shown = np.sort(np.argsort(-np.abs(means), kind="stable")[:MOST])
    rows = ds.drop_dims("record", errors="ignore").isel(component=shown)
    sites = [str(name) for name in rows.component.values]
    names = [escaped(name.replace(".", " ").replace("_", " ")) for name in sites]
    facts = [hover(rows.isel(component=at), title=name) for at, name in enumerate(names)]
    values, low, high = (rows[name].values for name in ("mean", "low", "high"))
    if len(means) > MOST:
        names, values = [*names, "all others"], np.append(values, means.sum() - values.sum())
    names, values = [*names, "margin"], np.append(values, means.sum())
    labels = [f"{name}  {value:+.2f}" for name, value in zip(names, values, strict=True)]
    none = [np.nan] * (len(names) - len(sites))
    centre = rows["mean"].values
    reach = (np.maximum(each, 0.0) for each in (high - centre, centre - low))  # not -1e-17
    whiskers = [rounded([*each, *none]) for each in reach]
    colours = [COLOURS.get(site.split(".")[-1], BLUE) for site in sites]
    whisker = {"type": "data", "array": whiskers[0], "color": INK}
    bars = go.Bar(
        x=rounded(values),
        y=labels,
        base=rounded([*(np.cumsum(values[:-1]) - values[:-1]), 0.0]),
        orientation="h",
        marker={"color": [*colours, *[GREY] * len(none)]},
        error_x=whisker | {"arrayminus": whiskers[1], "thickness": 1.4},
        hovertext=[*facts, *labels[len(facts) :]],
        hoverinfo="text",
    )
    about = "difference of the mean margins" if ds.attrs.get("compared") else "mean margin"
    figure = go.Figure(bars)
    figure.update_xaxes(title_text=f"{about} up to this part, 95 % interval of the part [nat]")
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return styled(figure, height=max(240, 90 + 22 * len(labels)))
