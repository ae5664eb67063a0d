"""Figure of effective rank: where in the network the weights use few directions."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from workbench.plots.style import (
    DIVERGING,
    INK,
    SERIES,
    axis_title,
    escaped,
    hover,
    rounded,
    say_above,
    styled,
    word_cells,
)

ROLES = ("query", "key", "value", "attention_out", "feedforward_in", "feedforward_out")
ROW, COURSE, LABELS = 32, 220, 64  # pixels: a row of cells, the lines, what is between them
MEASURE = "effective_rank_ratio"
FACTS = ["effective_rank", "effective_rank_energy", "participation_ratio", "stable_rank"]
FACTS += ["numerical_rank", "condition_number", "effective_rank_gaussian", MEASURE, "alpha"]
FACTS += ["activation", "activation_standard_error", "cost", "cost_standard_error", "corner"]
CALM = 0.5  # the colour scale reaches at least this far from 1


def effective_rank(ds: xr.Dataset, *, measure: str = MEASURE) -> go.Figure:
    """Draw blocks by roles, each cell the effective rank over that of a Gaussian of its shape.

    1 is what random weights of that shape have; below 1 (orange) fewer directions carry the
    matrix. Embedding and head stand above the blocks. With a ``step`` dim the cells show the last
    step and a second panel shows the course of each role, as the median over blocks; of
    `readings.rank_evidence` it shows what the block of each visit is worth. Clicks set the control
    ``matrix``.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name, or of `readings.rank_evidence`.
    measure : str
        What the cells show, a variable by ``matrix``.

    Returns
    -------
    Figure
        Cells in rows of blocks, input at the top.
    """
    last = ds.isel(step=-1) if "step" in ds.dims else ds
    ratio = last[measure]
    figure = go.Figure(_cells(last, measure))
    cells, course = ROW * len(figure.data[0].y), []
    if "block_cost" in ds:
        course, along = [_costs(ds)], "visit, in order of execution"
        title = axis_title(ds.block_cost, width=34)
    elif ds.sizes.get("step", 0) > 1:
        course, along = _course(ds[measure]), "optimizer step [1]"
        title = f"{axis_title(ds[measure], width=34)}<br>median over blocks"
    below = LABELS + COURSE if course else 0
    floor = below / (cells + below)  # of the cells, as a share of the plot's height
    plain = {"showgrid": False, "zeroline": False, "type": "category"}
    figure.update_layout(xaxis=plain, yaxis=plain | {"domain": [floor, 1], "autorange": "reversed"})
    if course:  # under the cells, the legend of its lines beside them
        top = COURSE / (cells + below)
        figure.add_traces([trace.update(xaxis="x2", yaxis="y2") for trace in course])
        figure.update_layout(
            xaxis2={"anchor": "y2", "title": along},
            yaxis2={"anchor": "x2", "domain": [0, top], "title": title},
            legend={"orientation": "v", "x": 1.01, "y": top, "yanchor": "top"},
        )
    middle = 0.0 if "compared" in ds.attrs else float(ratio.median()) if measure == "alpha" else 1.0
    figure.update_layout(coloraxis=_colours(ratio.values, middle, floor=floor))
    chance = "; 1 is random weights of that shape" if measure == MEASURE and middle else ""
    say_above(figure, f"cells: {axis_title(ratio, width=110)}{chance}")
    return styled(figure, height=max(200, round(96 + cells + below)))


def _cells(ds: xr.Dataset, measure: str) -> go.Heatmap:
    """Draw every matrix; embedding and head in a row of their own, named in the cell."""
    roles = _in_order(ds.role.values[ds.block.values >= 0]) or ["embedding", "head"]
    told = (ds.block >= 0) | (measure == MEASURE) | np.isfinite(ds[measure])
    known = ds.isel(matrix=told.values)
    blocks = sorted({int(block) for block in known.block.values})
    shape = (len(blocks), len(roles))
    lowest = np.full(shape, np.nan)
    text, names = np.full(shape, "", dtype=object), np.full(shape, "", dtype=object)
    facts = np.full(shape, "no such matrix", dtype=object)
    for index, matrix in enumerate(known.matrix.values):
        point = known.isel(matrix=index)
        block, role, value = int(point.block), str(point.role.item()), float(point[measure])
        cell = blocks.index(block), roles.index(role) if block >= 0 else int(names[0, 0] != "")
        first = [facts[cell]] if names[cell] else []  # of several in one cell the lowest counts
        lowest[cell] = np.fmin(lowest[cell], value)
        shown = f"{lowest[cell]:.2f}" if np.isfinite(lowest[cell]) else ""
        text[cell] = shown if block >= 0 else f"{escaped(role)} {shown}"
        facts[cell], names[cell] = "<br><br>".join([*first, _facts(point)]), escaped(matrix)
    return word_cells(
        x=[escaped(role) for role in roles],
        y=["outside" if block < 0 else f"block {block}" for block in blocks],
        z=[rounded(row) for row in lowest],
        text=text.tolist(),
        hovertext=facts.tolist(),
        customdata=names.tolist(),
        meta={"sets": "matrix"},
        coloraxis="coloraxis",
        textfont={"size": 13},
    )


def _in_order(roles: Iterable[object]) -> list[str]:
    """Return the different roles: those of a block in the order they run, others behind."""
    present = {str(role) for role in roles}
    known = [role for role in (*ROLES, "embedding", "head") if role in present]
    return known + sorted(present - set(known))


def _facts(point: xr.Dataset) -> str:
    """List the facts of one matrix."""
    shape = ""
    if {"rows", "columns"} <= set(point.coords):
        shape = f" ({int(point.rows)} x {int(point.columns)})"
    told = point[[name for name in FACTS if name in point]]
    return hover(told, title=escaped(point.matrix.item()) + shape)


def _course(ratio: xr.DataArray) -> list[go.Scatter]:
    """Draw the median over blocks of each role against step."""
    dashes = ("solid", "dash", "dot")
    lines = []
    for number, role in enumerate(_in_order(ratio.role.values)):
        median = ratio.isel(matrix=ratio.role.values == role).median("matrix", skipna=False)
        lines.append(
            go.Scatter(
                x=ratio.step.values.tolist(),
                y=rounded(median.values),
                name=escaped(role),
                mode="lines+markers",
                line={"color": SERIES[number % 6], "dash": dashes[number // 6 % 3], "width": 2},
                marker={"size": 5},
                hovertemplate=f"{escaped(role)}, step %{{x}}: %{{y:.3f}}<extra></extra>",
            )
        )
    return lines


def _costs(ds: xr.Dataset) -> go.Bar:
    """Draw what the block of each visit is worth, with two standard errors either way."""
    spread = rounded(2 * ds.block_cost_standard_error)
    return go.Bar(
        x=[f"visit {visit}" for visit in ds.visit.values],
        y=rounded(ds.block_cost),
        error_y={"type": "data", "array": spread, "color": INK},
        marker_color=SERIES[0],
        hovertemplate="%{x}: %{y} bit/byte<extra></extra>",
        showlegend=False,
    )


def _colours(ratios: NDArray[np.float64], middle: float, *, floor: float) -> dict[str, Any]:
    """Make the common colour scale, symmetric and never so tight that noise shouts."""
    finite = ratios[np.isfinite(ratios)]
    reach = max(CALM, float(np.abs(finite - middle).max())) if len(finite) else CALM
    bar = {"thickness": 10, "x": 1.01, "y": 1, "yanchor": "top", "len": 1 - floor}
    colours = {"colorscale": DIVERGING, "cmid": middle, "colorbar": bar | {"outlinewidth": 0}}
    return colours | {"cmin": round(middle - reach, 2), "cmax": round(middle + reach, 2)}
