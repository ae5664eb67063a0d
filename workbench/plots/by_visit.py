"""Figures of what is measured at every visit."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.plots.style import (
    DIVERGING,
    axis_title,
    escaped,
    hover,
    rounded,
    say_above,
    styled,
    word_cells,
)


def by_visit(
    ds: xr.Dataset, *, name: str, middle: float | None = None, log: bool = False
) -> go.Figure:
    """Draw one measure as cells, visits by heads or by roles; hovering tells every measure.

    Parameters
    ----------
    ds : Dataset
        Dims ``visit`` and one more.
    name : str
        The variable that is drawn.
    middle : float, optional
        Value of the neutral colour, such as chance; by default the median of the cells.
    log : bool
        Colour by ratios instead of by differences, for sizes; the colour bar is left out.
    """
    values = ds[name].transpose("visit", ...)
    other = str(values.dims[1])
    cells = values.values.astype(float)
    columns = [escaped(each if other == "role" else f"{other} {each}") for each in ds[other].values]
    rows = [f"visit {each}" for each in ds.visit.values]
    told = [
        [
            hover(ds.isel({"visit": row, other: at}), title=f"{label}, {column}")
            for at, column in enumerate(columns)
        ]
        for row, label in enumerate(rows)
    ]
    if middle is None:
        middle = float(np.median(cells[np.isfinite(cells)])) if np.isfinite(cells).any() else 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.log(cells / middle) if log else cells - middle
    reach = float(np.abs(depth[np.isfinite(depth)]).max(initial=1e-9))
    figure = go.Figure(
        word_cells(
            x=columns,
            y=rows,
            z=[rounded(row) for row in (depth if log else cells)],
            text=[[f"{each:.3g}" if np.isfinite(each) else "" for each in row] for row in cells],
            hovertext=told,
            colorscale=DIVERGING,
            zmin=rounded([-reach if log else middle - reach])[0],
            zmax=rounded([reach if log else middle + reach])[0],
            showscale=not log,
            colorbar={"outlinewidth": 0, "thickness": 12},
        )
    )
    say_above(figure, f"cells: {axis_title(values, width=110)}; neutral at {middle:.3g}")
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    figure.update_xaxes(showgrid=False, type="category")
    return styled(figure, height=max(200, 110 + 36 * len(rows)))


def activation(ds: xr.Dataset) -> go.Figure:
    """Draw the rank of activations over that of as many Gaussian vectors, the neutral 1."""
    return by_visit(ds, name="activation_rank_ratio", middle=1.0)


def attention(ds: xr.Dataset) -> go.Figure:
    """Draw the entropy of every head over that of even attention, the blue end at 1."""
    return by_visit(ds, name="entropy", middle=0.5)


def residual(ds: xr.Dataset) -> go.Figure:
    """Draw how large every write is beside the stream it is added to."""
    return by_visit(ds.isel(role=slice(1, None)), name="write_share", log=True)
