"""Figure of the ablations: what it costs to do without each part and each head."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.plots.style import DIVERGING, INK, axis_title, hover, rounded, styled, word_cells
from workbench.readings.ablation import ablated_cells, alike

MARKS = {"free": "<br>free", "harmful": "<br>harms", "unjudged": "<br>?", "noise": "<br>noise"}
LEGENDS = (
    "free: within noise and below the floor; harms: better without it; ?: not surely any of these",
    "noise: within twice its standard error",
)
ALIKE = "; dotted: not to be told from the framed one"


def ablation(ds: xr.Dataset, *, chosen: str = "") -> go.Figure:
    """Draw the cost of every part and head as a cell: brown is dear, blue a gain.

    The word in a cell is its verdict; none means needed. Of two runs (`result.difference`) brown
    costs more in the first, and what twice the error covers is marked ``noise``. The second number
    is the standard error. Colours follow the cube root of the cost, so that small costs show
    beside large ones. Clicking a cell sets the control ``target``.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    chosen : str
        Name of a cell to be framed, such as ``visit.1.head.0``; those whose cost is the same within
        twice the paired error are dotted.
    """
    cells = ablated_cells(ds).transpose("visit", "part", ...)
    noise = xr.where(abs(cells.cost) <= 2 * cells.cost_standard_error, "noise", "")
    verdict = cells.get("verdict", noise).values
    shade = np.cbrt(cells.cost.values)
    reach = np.nanmax(abs(shade), initial=0.1)
    places = [[f"visit.{visit}.{part}" for part in cells.part.values] for visit in ds.visit.values]
    text, facts = (np.empty(shade.shape, dtype=object) for _ in range(2))
    for at in np.ndindex(shade.shape):
        point = cells.isel(visit=at[0], part=at[1])
        error = float(point.cost_standard_error)
        spread = f"<br>+- {error:.1g}" if np.isfinite(error) else ""
        text[at] = f"{round(float(point.cost), 4):.2g}{spread}{MARKS.get(verdict[at], '')}"
        facts[at] = hover(point, title=places[at[0]][at[1]])
    map_ = word_cells(
        x=cells.part.values.tolist(),
        y=[f"visit {visit}" for visit in ds.visit.values],
        z=[rounded(row) for row in shade],
        text=text.tolist(),
        hovertext=facts.tolist(),
        customdata=places,
        meta={"sets": "target"},
        **{"colorscale": DIVERGING, "reversescale": True, "zmin": -reach, "zmax": reach},
        showscale=False,
    )
    plain = {"showgrid": False, "zeroline": False, "type": "category"}
    close = alike(cells, chosen).values
    legend = LEGENDS["compared" in ds.attrs] + (ALIKE if close.any() else "")
    title = f"{axis_title(ds.cost)} +- one standard error<br>{legend}"
    figure = go.Figure(map_, {"xaxis": plain, "yaxis": plain | {"autorange": "reversed"}})
    corner = {"x": 0, "y": 1, "xref": "paper", "yref": "paper", "yanchor": "bottom"}
    figure.add_annotation(text=title, align="left", showarrow=False, **corner)
    for width, dash, cells_framed in ((3, "solid", np.array(places) == chosen), (2, "dot", close)):
        for row, column in np.argwhere(cells_framed).tolist():
            corners = {"x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
            figure.add_shape(**corners, line={"color": INK, "width": width, "dash": dash})
    return styled(figure, height=160 + 60 * ds.sizes["visit"])
