"""Figure of rank beside need: which matrices to drop, factor, share or leave."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from workbench.plots.effective_rank import FACTS, ROLES
from workbench.plots.style import GREY, SERIES, axis_title, escaped, hover, rounded, styled

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon", "circle")
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
    inside = ds.isel(matrix=(ds.block >= 0).values)
    cost, error = inside.cost.values, 2 * np.nan_to_num(inside.cost_standard_error.values)
    up, down = _bent(cost + error) - _bent(cost), _bent(cost) - _bent(cost - error)
    hollow = inside.get("corner", inside.role).values == "unjudged"
    bars = {"error_x": {"array": 2 * inside.activation_standard_error.values}}
    bars["error_y"] = {"array": up, "arrayminus": down}
    found = inside[[name for name in FACTS if name in inside]]
    places = inside.activation.values, _bent(cost)
    figure = go.Figure(by_role(found, places, hollow=hollow, bars=bars))
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


def by_role(
    ds: xr.Dataset, places: Any, *, hollow: Any, bars: Mapping[str, Any], chosen: str = ""
) -> list[go.Scatter]:
    """Draw every matrix as a point, a colour and a symbol for each role.

    Clicking a point sets the control ``matrix``.

    Parameters
    ----------
    ds : Dataset
        By ``matrix``, with coords block and role; its variables are said on hovering.
    places : pair of (matrix,) float64
    hollow : (matrix,) bool
    bars : mapping
        ``error_x`` or ``error_y`` to ``array`` and ``arrayminus``, each (matrix,).
    chosen : str
        Name of a matrix to be drawn larger.
    """
    traces = []
    thin = {"type": "data", "thickness": 1, "width": 0}
    shared = {"mode": "markers+text", "textposition": "middle right", "hoverinfo": "text"}
    for at, role in enumerate(dict.fromkeys([*ROLES, *ds.role.values])):
        here = np.flatnonzero(ds.role.values == role)
        names = ds.matrix.values[here].tolist()
        x, y = (rounded(values[here]) for values in places)
        spread = {
            side: thin | {end: rounded(values[here]) for end, values in ends.items()}
            for side, ends in bars.items()
        }
        trace = go.Scatter(
            x=x, y=y, name=escaped(role), legendgroup=escaped(role), **shared, **spread
        )
        trace.text = [str(each) if each >= 0 else "" for each in ds.block.values[here]]
        points = ((ds.isel(matrix=one), escaped(ds.matrix.values[one])) for one in here)
        trace.hovertext = [hover(point, title=title) for point, title in points]
        trace.marker = {"size": 11, "color": (*SERIES, GREY)[min(at, len(SERIES))]}
        trace.marker.symbol = [SYMBOLS[at] + "-open" * int(each) for each in hollow[here]]
        if chosen in names:
            trace.marker.size = [18 if name == chosen else 11 for name in names]
        traces.append(trace.update(customdata=names, meta={"sets": "matrix"}))
    return traces


def _bent(values: Any) -> NDArray[np.float64]:
    """Bend an axis: linear near 0, logarithmic far from it on either side."""
    return np.asarray(np.arcsinh(np.asarray(values) / BEND))
