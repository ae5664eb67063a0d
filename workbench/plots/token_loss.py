"""Figures of the loss by class of token: how much there is, and how much could be won back."""

import textwrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from workbench.plots.style import (
    BLUE,
    GREY,
    ORANGE,
    axis_title,
    escaped,
    hover,
    rounded,
    styled,
    token,
)
from workbench.readings.notation import with_error

SAID = {"bin": "positions", "repetition": "", "token_class": "class"}
FEW = 50  # tokens in a row that is not judged, and not drawn


def token_loss(ds: xr.Dataset, *, sort: str = "recoverable", clicks: str = "") -> go.Figure:
    """Draw each class's share of tokens against its share of the loss, and its bits per byte.

    Left: from the share of tokens (circle) to the share of the loss (square); orange where the
    class costs more than it is common. Right: what the class adds to the bits per byte above the
    reference, or to all of them, with its standard error; the bars add up to the total. Classes
    without tokens are left out.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name, or of `token_difference`.
    sort : str
        ``recoverable``: bits above the reference, where measured; ``share``: all bits.
    clicks : str, optional
        Control that a click on a class sets.
    """
    if "document" in ds.dims:
        return parts(ds)
    name = "excess" if sort == "recoverable" and "excess" in ds else "contribution"
    rows = ds.isel(token_class=np.flatnonzero(ds.tokens.values > 0))
    weight = np.abs(rows[name].values) if "compared" in ds.attrs else rows[name].values
    rows = rows.isel(token_class=np.argsort(-weight, kind="stable"))
    points = [rows.isel(token_class=at) for at in range(rows.sizes["token_class"])]
    labels = [f"{escaped(each.token_class.item())}  (n {int(each.tokens):,})" for each in points]
    facts = [hover(each, title=label) for each, label in zip(points, labels, strict=True)]
    colours = np.where(rows.loss_share.values > rows.token_share.values, ORANGE, BLUE).tolist()
    look: dict[str, Any] = {"y": labels, "hovertext": facts, "hoverinfo": "text"}
    if clicks:
        look |= {"customdata": rows.token_class.values.tolist(), "meta": {"sets": clicks}}
    figure = make_subplots(1, 2, horizontal_spacing=0.04, shared_yaxes=True)
    figure.add_traces(_shares(rows, colours, look), rows=1, cols=1)
    figure.add_traces(bars(rows, name, colours, look), rows=1, cols=2)
    whose = f" of {escaped(ds.attrs['run'])}" if "run" in ds.attrs else ""
    share = f"share of all tokens, share of all loss{whose} [1]"
    figure.update_xaxes(title_text=share, row=1, col=1)
    figure.update_xaxes(rangemode="tozero", row=1, col=1)
    total = float(rows[name].sum(skipna=False))
    kind, against = "part", escaped(ds.attrs.get("reference", "the reference").split(" (")[0])
    if name == "excess":
        kind = f"less {against}" if "compared" in ds.attrs else f"above {against}"
        kind += " (others may pay for what a class wins: it is known only afterwards)"
    title = "<br>".join(textwrap.wrap(f"{kind}, total {total:.3f} [bit/byte]", 64))
    figure.update_xaxes(title_text=title, range=_reach(rows, name), row=1, col=2)
    figure.update_yaxes(type="category", autorange="reversed")
    return styled(figure, height=max(260, 130 + 34 * len(labels)))


def parts(ds: xr.Dataset, *, name: str = "excess", most: int = 20) -> go.Figure:
    """Draw one measure of the cells of any crossing as bars with standard errors, largest first.

    Cells of few tokens are left out, as nothing can be said of them; pairs only count.

    Parameters
    ----------
    ds : Dataset
        Result of `loss_cells`, `confusions` or `token_difference`. Rows that have an ``offset`` set
        the control ``token`` when clicked.
    name : str
        The measure that is drawn.
    most : int
        Rows drawn.
    """
    dims = [*ds[name].dims]
    rows = ds[[each for each in ds if {*ds[each].dims} == {*dims}]].stack(row=dims)
    if "tokens" in rows and "pair" not in dims:
        rows = rows.isel(row=np.flatnonzero(rows.tokens >= min(FEW, rows.tokens.max())))
    rows = rows.isel(row=np.argsort(-np.abs(rows[name].values), kind="stable")[:most])
    labels = [_label(rows.isel(row=at), dims) for at in range(rows.sizes["row"])]
    facts = [hover(rows.isel(row=at), title=label) for at, label in enumerate(labels)]
    look: dict[str, Any] = {"y": labels, "hovertext": facts, "hoverinfo": "text"}
    if "offset" in rows:
        look |= {"customdata": rows.offset.values.tolist(), "meta": {"sets": "token"}}
    figure = go.Figure(bars(rows, name, [BLUE] * len(labels), look))
    figure.update_xaxes(title_text=axis_title(ds[name]), range=_reach(rows, name))
    figure.update_yaxes(type="category", autorange="reversed")
    return styled(figure, height=max(220, 110 + 24 * len(labels)))


def _reach(rows: xr.Dataset, name: str) -> list[float | None]:
    """Leave room for error bars, and for the numbers beyond them."""
    errors = np.nan_to_num(rows.get(f"{name}_standard_error", 0 * rows[name]).values)
    values = rows[name].values
    low, high = (values - errors).min(initial=0), (values + errors).max(initial=0)
    sides = np.array([values.min(initial=0) < 0, values.max(initial=-1) >= 0])
    room = (1.0 if sides.all() else 0.45) * (high - low)
    return rounded([low - room * sides[0], high + room * sides[1]])


def _label(point: xr.Dataset, dims: list[Any]) -> str:
    """Name a cell by its coordinates, and say how many tokens it has."""
    told = [f"{SAID.get(dim, dim)} {escaped(point[dim].item())}" for dim in dims]
    if "winner" in point.coords:
        told = [f"{token(point.target.item())} was, {token(point.winner.item())} predicted"]
    count = f"  (n {int(point.tokens):,})" if "tokens" in point else ""
    if "other_tokens" in point:
        count = f"  (n {int(point.tokens):,}, {int(point.other_tokens):,})"
    return ", ".join(told).strip() + count


def _shares(rows: xr.Dataset, colours: list[str], look: dict[str, Any]) -> list[go.Scatter]:
    """Draw the two shares of each class and the line between them."""
    tokens, loss = rounded(rows.token_share.values), rounded(rows.loss_share.values)
    ends = [(a, b, None) for a, b in zip(tokens, loss, strict=True)]
    along = {"x": sum(ends, ()), "y": sum(((each, each, None) for each in look["y"]), ())}
    stroke = {"mode": "lines", "line": {"color": GREY, "width": 3}, "hoverinfo": "skip"}
    lines = [go.Scatter(**along, **stroke, showlegend=False)]
    dots = [("share of tokens", tokens, "circle", GREY), ("share of loss", loss, "square", colours)]
    for name, x, symbol, colour in dots:
        marker = {"symbol": symbol, "size": 12, "color": colour}
        lines.append(
            go.Scatter(x=x, name=name, mode="markers", marker=marker, cliponaxis=False, **look)
        )
    return lines


def bars(
    rows: xr.Dataset, name: str, colours: list[str], look: dict[str, Any]
) -> list[go.Bar | go.Scatter]:
    """Draw one measure of each row, and its number beyond the error bar."""
    values, error = rows[name].values, f"{name}_standard_error"
    errors = rows[error].values if error in rows else np.full(len(values), np.nan)
    whisker = {"type": "data", "array": rounded(errors), "color": GREY, "thickness": 1.4}
    whisker["visible"] = bool(np.isfinite(errors).any())
    shown = {"orientation": "h", "marker": {"color": colours}, "showlegend": False}
    ends = values + np.where(values < 0, -1, 1) * np.nan_to_num(errors)
    text = {
        "text": [f"&nbsp;{with_error(*each)}&nbsp;" for each in zip(values, errors, strict=True)],
        "textposition": ["middle left" if value < 0 else "middle right" for value in values],
    }
    plain = {"mode": "text", "hoverinfo": "skip", "showlegend": False, "cliponaxis": False}
    return [
        go.Bar(x=rounded(values), error_x=whisker, **shown, **look),
        go.Scatter(x=rounded(ends), y=look["y"], **text, **plain),
    ]
