"""Figure of the learned mixing scalars: what setting each back would cost."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.plots.style import BLUE, INK, ORANGE, escaped, hover, rounded, styled

COSTS = {"zero_cost": ("set to 0", ORANGE, "x"), "reset_cost": ("set to its start", BLUE, "circle")}
LEAST = 1e-5  # bit/byte: end of the axis, where what changes nothing stands


def mixing(ds: xr.Dataset) -> go.Figure:
    """Draw what two changes of each scalar cost, the dearest first, with the decision for each.

    The axis is logarithmic; a change that saves has an open mark. Whiskers are twice the standard
    error, and the dotted line is what counts as free.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name, or the difference of two.
    """
    last = ds.isel(step=-1) if "step" in ds.dims else ds
    last = last.isel(scalar=np.argsort(-np.abs(last.reset_cost.values)))
    means = last["mean"].values
    labels = [f"{escaped(name)}  ({means[at]:.2f})" for at, name in enumerate(last.scalar.values)]
    facts = [hover(last.isel(scalar=at), title=label) for at, label in enumerate(labels)]
    figure = go.Figure()
    for name, (title, colour, symbol) in COSTS.items():
        cost = last[name].values
        marks = [symbol + "-open" * bool(each < 0) for each in cost]
        spread = {"array": rounded(2 * last[f"{name}_standard_error"].values), "thickness": 1}
        dots = {"x": rounded(np.abs(cost).clip(LEAST)), "y": labels, "name": title}
        marker = {"color": colour, "symbol": marks, "size": 8}
        style = {"mode": "markers", "marker": marker, "hoverinfo": "text", "hovertext": facts}
        figure.add_scatter(**dots, **style, error_x=spread)
    place = {"xref": "paper", "x": 1.01, "xanchor": "left", "showarrow": False}
    for label, told in zip(labels, last.get("decision", last.kind[:0]).values, strict=False):
        figure.add_annotation(y=label, text=escaped(told), **place)
    if "small" in ds.attrs:
        figure.add_vline(ds.attrs["small"], line={"color": INK, "dash": "dot", "width": 1})
    title = "bits per byte added (open: saved) [bit/byte]"
    figure.update_xaxes(type="log", dtick=1, exponentformat="none", title_text=title)
    figure.update_yaxes(type="category", autorange="reversed")
    return styled(figure, height=110 + 20 * len(labels)).update_layout(margin_r=80)
