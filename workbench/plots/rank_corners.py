"""Figure of rank beside need: which matrices to drop, factor, share or leave."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from workbench.plots.effective_rank import FACTS, ROLES
from workbench.plots.style import GREY, SERIES, axis_title, escaped, hover, rounded, styled

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
BEND = 1e-3  # bit/byte: the axis of costs is linear below this and logarithmic above
TICKS = (-1, -0.1, -0.01, -0.001, 0, 0.001, 0.01, 0.1, 1)
PLACES = (("dead", 0, 0), ("compressible", 0, 1), ("redundant", 1, 0), ("busy", 1, 1))


def rank_corners(ds: xr.Dataset) -> go.Figure:
    """Draw every matrix by the rank of its activations and the cost of its ablation.

    The number at a point is its block; a hollow one is unjudged. Bars are two standard errors.
    Clicking a point sets the control ``matrix``.

    Parameters
    ----------
    ds : Dataset
        Of `readings.rank_evidence`; or the difference of two, which has no corners.
    """
    figure = go.Figure()
    for at, role in enumerate(ROLES):
        here = ds.isel(matrix=(ds.role == role).values)
        points = [here.isel(matrix=index) for index in range(here.sizes["matrix"])]
        hollow = here.get("corner", here.role).values == "unjudged"
        cost, error = here.cost.values, 2 * np.nan_to_num(here.cost_standard_error.values)
        bars = {"type": "data", "thickness": 1, "width": 0}
        up, down = _bent(cost + error) - _bent(cost), _bent(cost) - _bent(cost - error)
        figure.add_scatter(
            x=rounded(here.activation),
            y=rounded(_bent(cost)),
            error_x={**bars, "array": rounded(2 * here.activation_standard_error)},
            error_y={**bars, "array": rounded(up), "arrayminus": rounded(down)},
            mode="markers+text",
            text=[str(block) for block in here.block.values],
            textposition="middle right",
            name=escaped(role),
            marker={"size": 11, "color": SERIES[at]},
            marker_symbol=[SYMBOLS[at] + "-open" * int(each) for each in hollow],
            customdata=here.matrix.values.tolist(),
            meta={"sets": "matrix"},
            hovertext=[
                hover(point[[name for name in FACTS if name in point]], title=escaped(name))
                for point, name in zip(points, here.matrix.values, strict=True)
            ],
            hoverinfo="text",
        )
    if "border" in ds.attrs:
        line = {"line": {"color": GREY, "width": 1, "dash": "dot"}}
        figure.add_vline(x=ds.attrs["border"], **line)
        figure.add_hline(y=float(_bent(ds.attrs["floor"])), **line)
        for name, x, y in PLACES:
            spot = {"x": x, "xref": "x domain", "xanchor": ("left", "right")[x]}
            spot |= {"y": y, "yref": "y domain", "yanchor": ("bottom", "top")[y]}
            figure.add_annotation(text=f"<i>{name}</i>", showarrow=False, **spot)
    ticks = {"tickvals": rounded(_bent(TICKS)), "ticktext": [f"{each:g}" for each in TICKS]}
    figure.update_layout(
        xaxis={"title": axis_title(ds.activation)}, yaxis={"title": axis_title(ds.cost), **ticks}
    )
    return styled(figure, height=460)


def _bent(values: Any) -> NDArray[np.float64]:
    """Bend an axis: linear near 0, logarithmic far from it on either side."""
    return np.asarray(np.arcsinh(np.asarray(values) / BEND))
