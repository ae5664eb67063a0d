"""Figure of the loss around a learned alpha."""

import plotly.graph_objects as go
import xarray as xr

from workbench.plots.by_run import overlaid
from workbench.plots.style import BLUE, GREEN, INK, ORANGE, axis_title, rounded, styled


@overlaid
def alpha_curve(ds: xr.Dataset) -> go.Figure:
    """Draw what other mixes of one visit cost, with the learned and the initial mix marked.

    The dotted line is what counts as free. A diamond is the mean of what is mixed in, in its
    place; a star is the mix that was asked for.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name, and what `explore` adds: `mean_cost`, and
        `asked_cost` with attr ``asked`` (a mix); each cost with its standard error.
    """
    figure = go.Figure()
    points = {
        "cost": ("measured", ds.setting.values, {"color": BLUE, "size": 7}),
        "mean_cost": ("its mean instead", [0], {"color": ORANGE, "symbol": "diamond", "size": 10}),
        "asked_cost": (
            "asked for",
            [ds.attrs.get("asked")],
            {"color": GREEN, "symbol": "star", "size": 13},
        ),
    }
    for key, (name, x, marker) in points.items():
        if key in ds:
            error = {"array": rounded(2 * ds[f"{key}_standard_error"].values), "thickness": 1}
            line = {"x": rounded(x), "y": rounded(ds[key].values), "name": name, "error_y": error}
            mode = "lines+markers" if key == "cost" else "markers"
            figure.add_scatter(**line, mode=mode, marker=marker)
    for name in ("learned", "init"):
        figure.add_vline(ds.attrs[name], line={"color": INK, "width": 1}, annotation_text=name)
    figure.add_hline(ds.attrs["small"], line={"color": INK, "dash": "dot", "width": 1})
    figure.update_xaxes(title_text=f"mix applied at visit {ds.attrs['visit']} [1]")
    figure.update_yaxes(title_text=axis_title(ds.cost))
    return styled(figure, height=340)
