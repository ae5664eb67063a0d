"""Figure of the ablations: what it costs to do without each part and each head."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.plots.style import DIVERGING, INK, axis_title, hover, rounded, styled
from workbench.readings.ablation import ablated_cells

MARKS = {"free": "<br>free", "harmful": "<br>harms", "unjudged": "<br>?", "noise": "<br>noise"}
LEGENDS = (
    "free: within noise and below the floor; harms: better without it; ?: not surely any of these",
    "noise: within twice its standard error",
)


def ablation(ds: xr.Dataset, *, chosen: str = "") -> go.Figure:
    """Draw the cost of every part and head as a cell: brown is dear, blue a gain.

    The word in a cell is its verdict; none means needed. Of two runs (`result.difference`) brown
    costs more in the first, and what twice the error covers is marked ``noise``. Colours follow
    the cube root of the cost, so that small costs show beside large ones. Clicking a cell sets the
    control ``target``.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    chosen : str
        Name of a cell to be framed, such as ``visit.1.head.0``.
    """
    cells = ablated_cells(ds).transpose("visit", "part")
    noise = xr.where(abs(cells.cost) <= 2 * cells.cost_standard_error, "noise", "")
    verdict = cells.get("verdict", noise).values
    shade = np.cbrt(cells.cost.values)
    reach = np.nanmax(abs(shade), initial=0.1)
    places = [[f"visit.{visit}.{part}" for part in cells.part.values] for visit in ds.visit.values]
    text, facts = (np.empty(shade.shape, dtype=object) for _ in range(2))
    for at in np.ndindex(shade.shape):
        point = cells.isel(visit=at[0], part=at[1])
        text[at] = f"{round(float(point.cost), 4):.2g}{MARKS.get(verdict[at], '')}"
        facts[at] = hover(point, title=places[at[0]][at[1]])
    map_ = go.Heatmap(
        x=cells.part.values.tolist(),
        y=[f"visit {visit}" for visit in ds.visit.values],
        z=[rounded(row) for row in shade],
        text=text.tolist(),
        hovertext=facts.tolist(),
        customdata=places,
        meta={"sets": "target"},
        **{"colorscale": DIVERGING, "reversescale": True, "zmin": -reach, "zmax": reach},
        **{"texttemplate": "%{text}", "hoverinfo": "text", "hoverongaps": False},
        **{"showscale": False, "xgap": 3, "ygap": 3},
    )
    plain = {"showgrid": False, "zeroline": False, "type": "category"}
    title = f"{axis_title(ds.cost)}<br>{LEGENDS['compared' in ds.attrs]}"
    figure = go.Figure(map_, {"xaxis": plain, "yaxis": plain | {"autorange": "reversed"}})
    corner = {"x": 0, "y": 1, "xref": "paper", "yref": "paper", "yanchor": "bottom"}
    figure.add_annotation(text=title, align="left", showarrow=False, **corner)
    for row, column in np.argwhere(np.array(places) == chosen).tolist():
        corners = {"x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
        figure.add_shape(**corners, line={"color": INK, "width": 3})
    return styled(figure, height=160 + 46 * ds.sizes["visit"])
