"""Figures of one intervention: which tokens pay for it, and how its cost goes with strength."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.plots.style import BLUE, GREY, INK, VERMILLION, axis_title, rounded, styled

FLAT = {"type": "category", "autorange": "reversed", "showgrid": False}


def intervention(ds: xr.Dataset) -> go.Figure:
    """Draw what an intervention costs the tokens of each class; the bars sum to the total.

    Whiskers are two paired standard errors; what they do not part from 0 is called noise.

    Parameters
    ----------
    ds : Dataset
        Result of `diagnostics.intervention_cost`, of which the first intervention is drawn.
    """
    one = ds.isel(intervention=0)
    spread = one.cost_by_class_standard_error.values
    met = np.flatnonzero((one.cost_by_class.values != 0) | (spread > 0))
    order = met[np.argsort(-one.cost_by_class.values[met])]
    cost = np.append(float(one.cost), one.cost_by_class.values[order])
    wide = 2 * np.append(float(one.cost_standard_error), spread[order])
    names = ["total", *one.token_class.values[order]]
    noise = np.where(np.abs(cost) <= wide, " (noise)", "")
    bar = go.Bar(
        x=rounded(cost),
        y=[f"{n}  {round(c, 4):+.2g}{said}" for n, c, said in zip(names, cost, noise, strict=True)],
        orientation="h",
        marker={"color": [GREY, *(VERMILLION if each > 0 else BLUE for each in cost[1:])]},
        error_x={"array": rounded(wide), "color": INK},
        hovertemplate="%{y} bit/byte<extra></extra>",
    )
    figure = go.Figure(bar, {"yaxis": FLAT, "xaxis_title_text": axis_title(ds.cost_by_class)})
    return styled(figure, height=130 + 30 * len(names))


def intervention_curve(ds: xr.Dataset) -> go.Figure:
    """Draw cost against the factor that a part is scaled by; at 1 it is as trained.

    Parameters
    ----------
    ds : Dataset
        Result of `diagnostics.Trial.cost` of several factors.
    """
    x = np.append(ds.factor.values, 1.0)
    order = np.argsort(x)
    wide = 2 * np.append(ds.cost_standard_error.values, 0)
    line = go.Scatter(
        x=rounded(x[order]),
        y=rounded(np.append(ds.cost.values, 0)[order]),
        error_y={"array": rounded(wide[order]), "color": INK},
        mode="lines+markers",
        line={"color": VERMILLION},
        hovertemplate="factor %{x}: %{y} bit/byte<extra></extra>",
    )
    figure = go.Figure(line, {"yaxis_title_text": axis_title(ds.cost, width=34)})
    figure.update_xaxes(title_text="factor; 1 is as trained [1]")
    return styled(figure, height=280)
