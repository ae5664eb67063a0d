"""Figures that take the loss apart: calibration, and the text itself."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.plots.by_run import overlaid
from workbench.plots.style import (
    BLUE,
    DIVERGING,
    GREY,
    axis_title,
    escaped,
    hover,
    rounded,
    styled,
    token,
)
from workbench.readings import visible

WIDE, FEWEST = 14, 5  # tokens in a line of text, and lines that there is room for
TOLD = ["probability", "rank", "top1_probability", "excess", "position", "offset"]


def text_strip(ds: xr.Dataset, *, name: str = "excess") -> go.Figure:
    """Draw text as cells in reading order, coloured by loss; a click sets the control ``token``.

    Parameters
    ----------
    ds : Dataset
        Result of `worded`.
    name : str
        What the colour shows: ``excess`` over the reference (orange loses, blue wins) or ``nll``.
    """
    n_row = max(1, -(-ds.sizes["token"] // WIDE))
    values = ds[name].values.astype(float)
    reach = float(np.nanquantile(np.abs(values), 0.95)) if values.size else 0.0
    reach = reach or 1.0  # of nothing, or of one token without excess
    look = {"xgap": 2, "ygap": 2, "texttemplate": "%{text}", "textfont": {"size": 12}}
    against = ds.attrs.get("reference", "the reference").split(" (")[0].split(":")[0]
    title = f"loss above<br>{escaped(against)} [bit]" if name == "excess" else axis_title(ds[name])
    bar = {"outlinewidth": 0, "thickness": 10, "title": {"text": title}}
    colours = {"colorscale": DIVERGING, "reversescale": True, "zmin": -reach, "zmax": reach}
    figure = go.Figure(
        go.Heatmap(
            z=_lines(rounded(values), n_row, None),
            text=_lines([_short(each) for each in ds.target.values], n_row, ""),
            hoverinfo="text",
            hovertext=_lines([_story(ds.isel(token=at)) for at in range(len(values))], n_row, ""),
            customdata=_lines(ds.offset.values.tolist(), n_row, 0),
            meta={"sets": "token"},
            colorbar=bar,
            **colours,
            **look,
        )
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, range=[max(n_row, FEWEST) - 0.5, -0.5])
    return styled(figure, height=90 + 27 * max(n_row, FEWEST))


def _lines(values: list[Any], n_row: int, blank: object) -> list[list[Any]]:
    """Break a list into lines of text, the last one filled."""
    whole = values + [blank] * (n_row * WIDE - len(values))
    return [whole[at : at + WIDE] for at in range(0, len(whole), WIDE)]


def _short(text: object) -> str:
    """Show a token in a narrow cell."""
    return escaped(visible(str(text), longest=9))


def _story(point: xr.Dataset) -> str:
    """Tell what happened at one token."""
    title = f"{token(point.target.item())} ({escaped(point.kind.item())}), first was"
    facts = hover(point[TOLD], title=f"{title} {token(point.winner.item())}")
    return f"... {escaped(visible(point.before.item(), longest=90))}<br>{facts}"


@overlaid
def position_loss(ds: xr.Dataset) -> go.Figure:
    """Draw the loss along the context, of the model and of the reference.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    rows = ds.isel(bin=np.flatnonzero(ds.tokens > 0))
    reference = rows.loss * (1 - rows.excess / rows.contribution)
    names = [escaped(each) for each in rows.bin.values]
    dots = {"mode": "lines", "line": {"color": GREY, "dash": "dot"}, "hoverinfo": "skip"}
    under = go.Scatter(x=names, y=rounded(reference.values), name="reference", **dots)
    figure = go.Figure([under, _curve(rows, names, "loss", name="model")])
    figure.update_xaxes(title_text="positions in the context [1]", type="category")
    figure.update_yaxes(title_text=axis_title(ds.loss))
    return styled(figure, height=340)


@overlaid
def calibration(ds: xr.Dataset, *, chosen: str = "all") -> go.Figure:
    """Draw how often the first is right against its probability; the larger, the more tokens.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    chosen : str
        Class of the token predicted first, or ``all``.
    """
    rows = ds[[each for each in ds if "bin" in ds[each].dims]].sel(token_class=chosen)
    rows = rows.isel(bin=np.flatnonzero(rows.tokens > 0))
    dots = {"mode": "lines", "line": {"color": GREY, "dash": "dot"}, "hoverinfo": "skip"}
    measured = _curve(rows, rounded(rows.confidence.values), "accuracy", name=chosen)
    figure = go.Figure([go.Scatter(x=[0, 1], y=[0, 1], name="calibrated", **dots), measured])
    figure.update_xaxes(title_text=axis_title(ds.confidence), range=[-0.02, 1.02])
    figure.update_yaxes(title_text=axis_title(ds.accuracy), range=[-0.02, 1.02])
    return styled(figure, height=380)


def _curve(rows: xr.Dataset, x: list[Any], measure: str, *, name: str) -> go.Scatter:
    """Draw one measure of bins with its standard error, larger where there are more tokens."""
    size = 6 + 14 * np.sqrt(rows.tokens.values / max(1, rows.tokens.values.max(initial=0)))
    errors = rounded(rows[f"{measure}_standard_error"].values)
    titles = [escaped(f"{name}, {each}") for each in rows.bin.values]
    return go.Scatter(
        x=x,
        y=rounded(rows[measure].values),
        name=escaped(name),
        mode="lines+markers",
        marker={"size": rounded(size), "color": BLUE},
        error_y={"array": errors, "thickness": 1.4},
        hovertext=[hover(rows.isel(bin=at), title=title) for at, title in enumerate(titles)],
        hoverinfo="text",
    )
