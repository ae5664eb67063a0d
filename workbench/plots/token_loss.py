"""Figure of token loss: which class of token the bits go to, against how common it is."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from workbench.plots.style import (
    BLUE,
    GREY,
    ORANGE,
    escaped,
    hover,
    rounded,
    styled,
)


def token_loss(ds: xr.Dataset) -> go.Figure:
    """Draw each class's share of tokens against its share of the loss, and its bits per byte.

    Left: from the share of tokens (circle) to the share of the loss (square); orange where the
    class costs more than it is common. Right: what the class adds to the bits per byte of the
    text, with its standard error; the bars add up to the total. Classes without tokens are left
    out.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    rows = ds.isel(token_class=np.flatnonzero(ds.tokens.values > 0))
    rows = rows.isel(token_class=np.argsort(-rows.contribution.values, kind="stable"))
    labels = [_label(rows.isel(token_class=at)) for at in range(rows.sizes["token_class"])]
    facts = [hover(rows.isel(token_class=at), title=label) for at, label in enumerate(labels)]
    colours = np.where(rows.loss_share.values > rows.token_share.values, ORANGE, BLUE).tolist()
    figure = make_subplots(
        1, 2, column_widths=[0.54, 0.46], horizontal_spacing=0.04, shared_yaxes=True
    )
    figure.add_traces(_shares(rows, labels, facts, colours), rows=1, cols=1)
    figure.add_traces(_contribution(rows, labels, facts, colours), rows=1, cols=2)
    total = float(rows.contribution.sum(skipna=False))
    figure.update_xaxes(title_text="share of all tokens, share of all loss [1]", row=1, col=1)
    figure.update_xaxes(rangemode="tozero", row=1, col=1)
    figure.update_xaxes(
        title_text=f"part of the total of {total:.3f} bit/byte [bit/byte]",
        range=[0, round(1.5 * float(rows.contribution.max()), 4)],
        row=1,
        col=2,
    )
    figure.update_yaxes(type="category", autorange="reversed")
    return styled(figure, height=max(260, 130 + 34 * len(labels)))


def _label(point: xr.Dataset) -> str:
    """Name a class with its number of tokens."""
    return f"{escaped(point.token_class.item())}  (n {int(point.tokens):,})"


def _shares(
    rows: xr.Dataset, labels: list[str], facts: list[str], colours: list[str]
) -> list[go.Scatter]:
    """Draw the two shares of each class and the line between them."""
    tokens, loss = rounded(rows.token_share.values), rounded(rows.loss_share.values)
    lines_x: list[float | None] = []
    lines_y: list[str | None] = []
    for label, start, stop in zip(labels, tokens, loss, strict=True):
        lines_x += [start, stop, None]
        lines_y += [label, label, None]
    line = go.Scatter(
        x=lines_x,
        y=lines_y,
        mode="lines",
        line={"color": GREY, "width": 3},
        hoverinfo="skip",
        showlegend=False,
    )
    ends = [("share of tokens", tokens, "circle", GREY), ("share of loss", loss, "square", colours)]
    dots = [
        go.Scatter(
            x=values,
            y=labels,
            name=name,
            mode="markers",
            marker={"symbol": symbol, "size": 12, "color": colour},
            cliponaxis=False,
            hovertext=facts,
            hoverinfo="text",
        )
        for name, values, symbol, colour in ends
    ]
    return [line, *dots]


def _contribution(
    rows: xr.Dataset, labels: list[str], facts: list[str], colours: list[str]
) -> list[go.Bar | go.Scatter]:
    """Draw what each class adds to the bits per byte, and its number beyond the error bar."""
    values = rows.contribution.values
    errors = np.full(len(values), np.nan)
    if "contribution_standard_error" in rows:
        errors = rows.contribution_standard_error.values
    measured = bool(np.isfinite(errors).any())
    whisker = {"type": "data", "array": rounded(errors), "visible": measured, "thickness": 1.4}
    bars = go.Bar(
        x=rounded(values),
        y=labels,
        orientation="h",
        marker={"color": colours},
        error_x=whisker | {"color": GREY},
        hovertext=facts,
        hoverinfo="text",
        showlegend=False,
    )
    words = [_with_error(value, error) for value, error in zip(values, errors, strict=True)]
    numbers = go.Scatter(
        x=rounded(values + np.nan_to_num(errors)),
        y=labels,
        mode="text",
        text=words,
        textposition="middle right",
        hoverinfo="skip",
        showlegend=False,
    )
    return [bars, numbers]


def _with_error(value: float, error: float) -> str:
    """Write a number with its standard error where there is one."""
    if not np.isfinite(error):
        return f"&nbsp;{value:.3f}"
    return f"&nbsp;{value:.3f} &plusmn; " + (f"{error:.3f}" if error >= 5e-4 else "&lt;0.001")
