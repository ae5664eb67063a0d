"""Figure of what keeping less of prior and bias costs, in all and by class."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from workbench.plots.by_run import overlaid
from workbench.plots.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    VERMILLION,
    axis_title,
    hover,
    rounded,
    styled,
)
from workbench.readings.damping import shown_setting


@overlaid
def damping(ds: xr.Dataset) -> go.Figure:
    """Draw bits per byte against the share of one part that is kept, and one setting by class.

    Left: the other part is kept whole; below 0 the model gets better; the diamond is the setting.
    Right: what the setting adds, by class of the target; the bars add up to it.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name; attr ``setting`` chooses one, else the best.
    """
    prior, bias, chosen = ds.prior_kept.values, ds.bias_kept.values, shown_setting(ds)
    marks = {
        "prior": (np.flatnonzero(bias == 1), prior, ORANGE, "circle"),
        "bias": (np.flatnonzero(prior == 1), bias, VERMILLION, "square"),
        "this setting": (np.array([chosen]), np.minimum(prior, bias), INK, "diamond"),
    }
    figure = make_subplots(1, 2, column_widths=[0.6, 0.4], horizontal_spacing=0.16)
    for name, (at, kept, colour, symbol) in marks.items():
        at = at[np.argsort(kept[at], kind="stable")]
        errors = rounded(2 * ds.change_standard_error.values[at])
        line = go.Scatter(
            x=rounded(kept[at]),
            y=rounded(ds.change.values[at]),
            name=name,
            mode="lines+markers",
            marker={"color": colour, "symbol": symbol, "size": 10},
            error_y={"type": "data", "array": errors, "color": GREY},
            hovertext=[hover(ds.isel(setting=each), title=name) for each in at],
            hoverinfo="text",
        )
        if name != "bias" or (bias < 1).any():
            figure.add_trace(line, row=1, col=1)
    values = ds.change_by_class.values[chosen]
    classes = [str(each).replace("_", " ") for each in ds.token_class.values]
    colours = np.where(values > 0, ORANGE, BLUE).tolist()
    told = {"hovertemplate": "%{y}: %{x:+.4f} bit/byte<extra></extra>", "showlegend": False}
    bars = go.Bar(x=rounded(values), y=classes, orientation="h", marker={"color": colours}, **told)
    figure.add_trace(bars, row=1, col=2)
    figure.update_xaxes(title_text="share of the part that is kept [1]", row=1, col=1)
    figure.update_yaxes(title_text=f"{axis_title(ds.change)}<br>2 standard errors", row=1, col=1)
    figure.update_xaxes(title_text="added by class, this setting [bit/byte]", row=1, col=2)
    figure.update_yaxes(type="category", autorange="reversed", row=1, col=2)
    return styled(figure, height=360)
