"""Figure of effective rank: where in the network the weights use few directions."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from workbench.plots.style import DIVERGING, SERIES, axis_title, escaped, hover, rounded, styled

ROLES = ("query", "key", "value", "attention_out", "feedforward_in", "feedforward_out")
ROW, COURSE, LABELS = 32, 220, 64  # pixels: a row of cells, the lines, what is between them
CALM = 0.5  # the colour scale reaches at least this far from 1
GAP = 1.4  # rows that the row of embedding and head takes, its distance included


def effective_rank(ds: xr.Dataset) -> go.Figure:
    """Draw blocks by roles, each cell the effective rank over that of a Gaussian of its shape.

    1 is what random weights of that shape have; below 1 (orange) fewer directions carry the
    matrix. Embedding and head stand above the blocks. With a ``step`` dim the cells show the last
    step and a second panel shows the course of each role, as the median over blocks.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.

    Returns
    -------
    Figure
        Cells in rows of blocks, input at the top.
    """
    last = ds.isel(step=-1) if "step" in ds.dims else ds
    has_course = "step" in ds.dims and ds.sizes["step"] > 1
    in_block = np.asarray(ds.block.values) >= 0
    inside, outside = last.isel(matrix=in_block), last.isel(matrix=~in_block)
    figure = go.Figure()
    if inside.sizes["matrix"]:
        figure.add_trace(_cells(inside, _blocks(inside), _roles(inside)))
    if outside.sizes["matrix"]:
        figure.add_trace(_outside(outside))
    if has_course:
        figure.add_traces(_course(ds.effective_rank_ratio))
    cells = ROW * (len(_blocks(inside)) + (GAP if outside.sizes["matrix"] else 0))
    below = LABELS + COURSE if has_course else 0
    floor = below / (cells + below)  # of the cells, as a share of the plot's height
    _place(figure, inside, outside, floor=floor)
    if has_course:
        _place_course(figure, axis_title(ds.effective_rank_ratio, width=34), cells + below)
    ratio = last.effective_rank_ratio
    figure.update_layout(coloraxis=_colours(ratio.values, floor=floor))
    figure.add_annotation(
        text=f"cells: {axis_title(ratio, width=110)}; 1 is random weights of that shape",
        **{"x": 0, "xref": "paper", "xanchor": "left", "showarrow": False},
        **{"y": 1, "yref": "paper", "yanchor": "bottom", "yshift": 8},
    )
    return styled(figure, height=max(200, round(96 + cells + below)))


def _blocks(inside: xr.Dataset) -> list[int]:
    """Return the blocks present, input first."""
    return sorted({int(block) for block in inside.block.values})


def _roles(inside: xr.Dataset) -> list[str]:
    """Return the roles present, known ones in their order in a block, then the rest."""
    present = [str(role) for role in inside.role.values]
    return [r for r in ROLES if r in present] + sorted(set(present) - set(ROLES))


def _cells(inside: xr.Dataset, blocks: list[int], roles: list[str]) -> go.Heatmap:
    """Draw the matrices inside blocks; of several in one cell the lowest counts."""
    shape = (len(blocks), len(roles))
    lowest = np.full(shape, np.nan)
    facts = np.full(shape, "no such matrix", dtype=object)
    for index in range(inside.sizes["matrix"]):
        point = inside.isel(matrix=index)
        cell = blocks.index(int(point.block)), roles.index(str(point.role.item()))
        told = [] if facts[cell] == "no such matrix" else [facts[cell]]
        facts[cell] = "<br><br>".join([*told, _facts(point)])
        lowest[cell] = np.fmin(lowest[cell], float(point.effective_rank_ratio))
    return go.Heatmap(
        x=[escaped(role) for role in roles],
        y=[f"block {block}" for block in blocks],
        z=[rounded(row) for row in lowest],
        text=[[_number(value) for value in row] for row in lowest],
        hovertext=facts.tolist(),
        **_heatmap(),
    )


def _outside(outside: xr.Dataset) -> go.Heatmap:
    """Draw embedding and head as one row, named in the cell."""
    points = [outside.isel(matrix=index) for index in range(outside.sizes["matrix"])]
    ratios = outside.effective_rank_ratio.values
    names = [escaped(point.role.item()) for point in points]
    return go.Heatmap(
        x=[escaped(point.matrix.item()) for point in points],
        y=["outside"],
        z=[rounded(ratios)],
        text=[[f"{name} {_number(v)}" for name, v in zip(names, ratios, strict=True)]],
        hovertext=[[_facts(point) for point in points]],
        xaxis="x2",
        yaxis="y2",
        **_heatmap(),
    )


def _heatmap() -> dict[str, Any]:
    """Return what both heatmaps share."""
    look = {"coloraxis": "coloraxis", "xgap": 3, "ygap": 3, "hoverongaps": False}
    return look | {"texttemplate": "%{text}", "hoverinfo": "text", "textfont": {"size": 13}}


def _facts(point: xr.Dataset) -> str:
    """List the facts of one matrix."""
    shape = ""
    if {"rows", "columns"} <= set(point.coords):
        shape = f" ({int(point.rows)} x {int(point.columns)})"
    return hover(point, title=escaped(point.matrix.item()) + shape)


def _number(value: float) -> str:
    """Write a ratio in two decimals, or nothing."""
    return f"{value:.2f}" if np.isfinite(value) else ""


def _course(ratio: xr.DataArray) -> list[go.Scatter]:
    """Draw the median over blocks of each role against step."""
    roles = [str(role) for role in ratio.role.values]
    order = [r for r in (*ROLES, "embedding", "head") if r in roles]
    order += sorted(set(roles) - set(order))
    dashes = ("solid", "dash", "dot")
    lines = []
    for number, role in enumerate(order):
        chosen = ratio.isel(matrix=[each == role for each in roles])
        median = chosen.median("matrix", skipna=False)
        lines.append(
            go.Scatter(
                x=ratio.step.values.tolist(),
                y=rounded(median.values),
                name=escaped(role),
                mode="lines+markers",
                line={"color": SERIES[number % 6], "dash": dashes[number // 6 % 3], "width": 2},
                marker={"size": 5},
                hovertemplate=f"{escaped(role)}, step %{{x}}: %{{y:.3f}}<extra></extra>",
                xaxis="x3",
                yaxis="y3",
            )
        )
    return lines


def _place(figure: go.Figure, inside: xr.Dataset, outside: xr.Dataset, *, floor: float) -> None:
    """Lay the row of embedding and head above the blocks, with cells of the same size."""
    n_row, n_column, n_outside = len(_blocks(inside)), len(_roles(inside)), outside.sizes["matrix"]
    plain = {"showgrid": False, "zeroline": False, "type": "category"}
    top = floor + (1 - floor) * (n_row / (n_row + GAP) if n_outside else 1.0)
    lowest = 1 - (1 - top) / GAP
    share = n_outside / max(n_column, n_outside, 1)
    figure.update_layout(
        xaxis=plain | {"domain": [0, 1]},
        yaxis=plain | {"domain": [floor, top], "autorange": "reversed"},
    )
    if n_outside:
        hidden = plain | {"showticklabels": False}
        figure.update_layout(
            {
                "xaxis2": hidden | {"anchor": "y2", "domain": [0, share]},
                "yaxis2": hidden | {"anchor": "x2", "domain": [lowest, 1]},
            }
        )


def _place_course(figure: go.Figure, title: str, height: float) -> None:
    """Lay the lines under the cells, their legend beside them."""
    top = COURSE / height
    figure.update_layout(
        {
            "xaxis3": {"anchor": "y3", "title": "optimizer step [1]"},
            "yaxis3": {
                "anchor": "x3",
                "domain": [0, top],
                "title": f"{title}<br>median over blocks",
            },
            "legend": {"orientation": "v", "x": 1.01, "y": top, "yanchor": "top"},
        }
    )


def _colours(ratios: NDArray[np.float64], *, floor: float) -> dict[str, Any]:
    """Make the common colour scale, symmetric around 1 and never so tight that noise shouts."""
    finite = ratios[np.isfinite(ratios)]
    reach = max(CALM, float(np.abs(finite - 1).max())) if len(finite) else CALM
    bar = {"thickness": 10, "x": 1.01, "y": 1, "yanchor": "top", "len": 1 - floor}
    colours = {"colorscale": DIVERGING, "cmid": 1, "colorbar": bar | {"outlinewidth": 0}}
    return colours | {"cmin": round(1 - reach, 2), "cmax": round(1 + reach, 2)}
