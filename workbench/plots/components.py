"""Figure of the parts of a margin, as a waterfall: each begins where the one before ends."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.plots.by_run import by_run
from workbench.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    SERIES,
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
MOST = 32  # rows, where nobody asks for another number


def components(ds: xr.Dataset, *, most: int = MOST) -> go.Figure:
    """Draw the mean parts of margins with their intervals, in order; the last row is their sum.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name, or of `diagnostics.mean_parts`; of one run, or of
        several by `join_runs`.
    most : int
        Rows; the smallest parts share one more.
    """
    runs = {run: each.drop_dims("record", errors="ignore") for run, each in by_run(ds)}
    sites = list(dict.fromkeys(n for each in runs.values() for n in each.component.values.tolist()))
    whole = [each.reindex(component=sites) for each in runs.values()]
    means = np.nan_to_num([each["mean"].values.astype(float) for each in whole])  # (run, component)
    shown = np.sort(np.argsort(-np.abs(means).max(axis=0), kind="stable")[:most])
    names = [escaped(sites[at].replace(".", " ").replace("_", " ")) for at in shown]
    values, total = means[:, shown], means.sum(axis=1, keepdims=True)
    if len(sites) > most:
        names = [*names, "all others"]
        values = np.column_stack([values, total - values.sum(axis=1, keepdims=True)])
    values, names = np.column_stack([values, total]), [*names, "margin"]
    numbers = [", ".join(f"{value:+.2f}" for value in column) for column in values.T]
    labels = [f"{name}  {value}" for name, value in zip(names, numbers, strict=True)]
    none = [np.nan] * (len(names) - len(shown))
    own = [COLOURS.get(sites[at].split(".")[-1], BLUE) for at in shown] + [GREY] * len(none)
    figure = go.Figure(layout={"barmode": "group"})
    for number, (run, each) in enumerate(zip(runs, whole, strict=True)):
        rows, line = each.isel(component=shown), values[number]
        reach = (np.maximum(rows.high - rows["mean"], 0.0), np.maximum(rows["mean"] - rows.low, 0))
        high, low = (rounded([*width.values, *none]) for width in reach)  # never -1e-17
        told = enumerate(f"{run} {name}" for name in names[: len(shown)])
        facts = [hover(rows.isel(component=at), title=title) for at, title in told]
        figure.add_bar(
            x=rounded(line),
            y=labels,
            base=rounded([*(np.cumsum(line[:-1]) - line[:-1]), 0.0]),
            orientation="h",
            name=run,
            marker={"color": own if len(runs) == 1 else SERIES[number]},
            error_x={"type": "data", "array": high, "arrayminus": low}
            | {"color": INK, "thickness": 1.4},
            hovertext=[*facts, *labels[len(facts) :]],
            hoverinfo="text",
        )
    about = "difference of the mean margins" if ds.attrs.get("compared") else "mean margin"
    figure.update_xaxes(title_text=f"{about} up to this part, 95 % interval of the part [nat]")
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return styled(figure, height=max(240, 90 + (14 + 8 * len(runs)) * len(labels)))
