"""Figure of the embedding: which of its rows are wasted."""

import plotly.graph_objects as go
import xarray as xr

from workbench.plots.style import BLUE, GREY, axis_title, escaped, rounded, styled


def embedding(ds: xr.Dataset) -> go.Figure:
    """Draw the rank of the rows of each kind of token, now and before training.

    Parameters
    ----------
    ds : Dataset
        Diagnostic of the same name; what has fewer rows than channels stands without a point.
    """
    rows = zip(ds.part.values, ds.rows.values, strict=True)
    names = [f"{escaped(part)}, n {int(count)}" for part, count in rows]
    figure, title = go.Figure(), axis_title(ds.effective_rank_ratio)
    for values, name, colour, symbol in (
        (ds.get("effective_rank_start"), "before training", GREY, "line-ns-open"),
        (ds.effective_rank_ratio, "now", BLUE, "circle"),
    ):
        if values is not None:
            look = {"color": colour, "size": 11, "symbol": symbol, "line": {"width": 2}}
            figure.add_scatter(x=rounded(values), y=names, name=name, mode="markers", marker=look)
    figure.update_layout(
        xaxis={"title": f"{title}; none with fewer rows than channels", "rangemode": "tozero"},
        yaxis={"type": "category", "autorange": "reversed"},
    )
    return styled(figure, height=22 * len(names) + 140)
