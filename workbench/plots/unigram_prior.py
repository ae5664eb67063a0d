"""Figure of the constant part of the logits against how common each token is."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.plots.by_run import overlaid
from workbench.plots.style import GREY, SERIES, axis_title, escaped, rounded, styled, token

FURTHEST = 8  # tokens above the line that are named
MOST = 1500  # points drawn; those nearest to the line are left out first
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "pentagon")


@overlaid
def unigram_prior(ds: xr.Dataset) -> go.Figure:
    """Draw bias and prior of every judged token over its log-frequency, by class.

    The line is the fit; the tokens furthest above it are named. Near it is healthy.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    distance = np.nan_to_num(np.abs(ds.excess.values), nan=-1.0)
    rows = ds.isel(vocabulary=np.argsort(-distance, kind="stable")[:MOST])
    rows = rows.isel(vocabulary=np.flatnonzero(np.isfinite(rows.excess.values)))
    x, excess = rows.log_unigram.values, rows.excess.values
    y = rows.prior.values + rows.bias.values
    names = [token(piece) for piece in rows.piece.values]
    facts = [
        f"<b>{name}</b><br>learned {int(point[0]):,} times<br>beyond the line {point[1]:+.2f} nat"
        f"<br>norm of the head's row {point[2]:.3g}"
        for name, *point in zip(names, rows["count"].values, excess, rows.norm.values, strict=True)
    ]
    figure = go.Figure()
    for kind, symbol in zip(dict.fromkeys(rows.token_class.values.tolist()), SYMBOLS, strict=False):
        at = np.flatnonzero(rows.token_class.values == kind)
        figure.add_scatter(
            x=rounded(x[at], 3),
            y=rounded(y[at], 3),
            name=escaped(kind.replace("_", " ")),
            mode="markers",
            marker={"color": SERIES[len(figure.data) % len(SERIES)], "symbol": symbol},
            hovertext=[facts[each] for each in at],
            hoverinfo="text",
        )
    ends, above = np.argsort(x)[[0, -1][: x.size]], np.argsort(-excess, kind="stable")[:FURTHEST]
    fit = f"fit, correlation {ds.attrs['correlation']:.2f}"
    line, words = {"color": GREY, "dash": "dot"}, [f"&nbsp;{names[at]}&nbsp;" for at in above]
    figure.add_scatter(
        x=rounded(x[ends]), y=rounded((y - excess)[ends]), name=fit, mode="lines", line=line
    )
    figure.add_scatter(
        x=rounded(x[above]), y=rounded(y[above]), mode="text", text=words, showlegend=False
    )
    sides = (["middle right", "middle left"] * FURTHEST)[: len(above)]
    figure.update_traces(textposition=sides, selector={"mode": "text"})
    figure.update_xaxes(title_text=axis_title(ds.log_unigram))
    figure.update_yaxes(title_text="output bias and prior, centred [nat]")
    return styled(figure, height=460)
