"""The look of every figure, applied figure by figure and never globally.

Backgrounds are transparent and ink is a middle grey, so that one figure reads on a light and on a
dark page. Colours are those of Okabe and Ito, told apart by readers with any colour vision; no
figure relies on colour alone.
"""

import html
import math
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from workbench.readings import printable, visible

BLUE, ORANGE, VERMILLION, GREEN = "#2b7bba", "#e69f00", "#d55e00", "#009e73"
SKY, PURPLE, GREY = "#56b4e9", "#cc79a7", "#8b9099"
SERIES = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)
INK = "#767b84"  # contrast of at least 4 on white and on near-black
FAINT = "rgba(128,128,128,0.22)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
Values = NDArray[np.float64]
DIVERGING = [[0, "#a8400a"], [0.25, "#e8924a"], [0.5, "#f3f1ec"], [0.75, "#86b7dd"], [1, "#1f6aa5"]]

_AXIS = {
    "automargin": True,
    "gridcolor": FAINT,
    "linecolor": FAINT,
    "zerolinecolor": "rgba(128,128,128,0.55)",
    "zerolinewidth": 1,
    "ticks": "",
    "ticklabelstandoff": 6,
    "title": {"standoff": 10, "font": {"size": 13}},
}
_HOVER = {"bgcolor": "#20252d", "bordercolor": "#20252d", "align": "left"}
TEMPLATE = {
    "layout": {
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(SERIES),
        "hoverlabel": {**_HOVER, "font": {"family": FONT, "size": 13, "color": "#f3f4f6"}},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "margin": {"l": 16, "r": 16, "t": 48, "b": 16},
        "bargap": 0.35,
        "legend": {"orientation": "h", "traceorder": "normal"}
        | {"x": 0, "y": 1.01, "yanchor": "bottom", "xanchor": "left"},
        "hovermode": "closest",
    }
}


def styled(figure: go.Figure, *, height: int) -> go.Figure:
    """Give a finished figure the house look and its height in pixels."""
    figure.layout.template = TEMPLATE
    figure.update_layout(height=height)
    if figure.layout.showlegend is False:
        figure.update_layout(margin_t=16)
    return figure


def rounded(values: Iterable[object], digits: int = 4) -> list[float | None]:
    """Round to significant digits as plain numbers; what is not finite becomes a gap.

    Plotly stores arrays as base64, which nobody can read in a diff; lists of short numbers can be.

    Examples
    --------
    >>> rounded(np.array([0.123456, float("nan"), 12345.678]))
    [0.1235, None, 12350.0]
    """
    numbers = np.asarray(values, dtype=float).ravel().tolist()
    return [float(f"{each:.{digits}g}") if math.isfinite(each) else None for each in numbers]


def escaped(text: object) -> str:
    """Make text safe as a plotly label: markup and formulas inert, control characters shown.

    Plotly reads tags, entities and ``$...$`` in labels, so no text may pass as it is. Quotes
    stay, because plotly does not know their entities.

    Examples
    --------
    >>> escaped("<b>&") == "&lt;b&gt;&amp;"
    True
    """
    shown = printable(str(text), marks={})
    return html.escape(shown, quote=False).replace("$", "&#36;")


def token(piece: object, *, longest: int = 28) -> str:
    """Quote a token as a plotly label: as `escaped`, and its whitespace visible."""
    return f"'{escaped(visible(str(piece), longest=longest))}'"


def axis_title(variable: xr.DataArray, *, width: int = 64) -> str:
    """Title an axis by what it shows, ``long name [unit]``, in lines of `width` characters."""
    name = str(variable.attrs.get("long_name", variable.name))
    title = f"{name}\u00a0[{variable.attrs.get('units', '1')}]"  # a unit stays with its word
    lines = [line.replace("\u00a0", " ") for line in textwrap.wrap(title, width)]
    return "<br>".join(escaped(line) for line in lines)


def hover(point: xr.Dataset, *, title: str) -> str:
    """List every fact of one point, a line each; `title` must be escaped already.

    Parameters
    ----------
    point : Dataset
        Zero-dimensional variables; others are left out.
    """
    lines = [f"<b>{title}</b>"]
    for name, values in point.data_vars.items():
        if values.ndim == 0:
            label = escaped(values.attrs.get("long_name", name))
            lines.append(f"{label}: {_fact(values)}")
    return "<br>".join(lines)


def _fact(values: xr.DataArray) -> str:
    """Write one value with its unit."""
    value = values.item()
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, str | bytes):
        return escaped(value)
    if not math.isfinite(value):
        return "not measured"
    unit = values.attrs.get("units", "1")
    number = f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"
    return number if unit == "1" else f"{number} {unit}"


def extremes(y: Values, most: int) -> NDArray[np.int64]:
    """Return which points of a line to draw: the lowest and highest of each stretch, and gaps."""
    if len(y) <= most:
        return np.arange(len(y))
    finite = np.isfinite(y)
    filled = np.where(finite, y, y[finite].mean() if finite.any() else 0.0)
    parts = np.array_split(np.arange(len(y)), max(most // 2, 1))
    kept = {int(part[find(filled[part])]) for part in parts for find in (np.argmin, np.argmax)}
    return np.array(sorted(kept | {0, len(y) - 1} | set(np.flatnonzero(~finite)[:most])))


def word_cells(**given: Any) -> go.Heatmap:
    """Draw cells with words in them and facts behind them; what was not measured is a gap."""
    look = {"texttemplate": "%{text}", "hoverinfo": "text", "hoverongaps": False}
    return go.Heatmap({"xgap": 3, "ygap": 3} | look | given)


def say_above(figure: go.Figure, text: str) -> None:
    """Write a line over the plot, from its left edge."""
    corner = {"x": 0, "xref": "paper", "xanchor": "left", "y": 1, "yref": "paper"}
    figure.add_annotation(corner, text=text, yanchor="bottom", yshift=8, showarrow=False)


def depth_colours(count: int) -> list[str]:
    """Return `count` colours from shallow (gold) to deep (blue), ordered in lightness as well."""
    stops = np.array([[230, 171, 2], [205, 102, 77], [136, 78, 150], [43, 100, 186]], dtype=float)
    at = np.linspace(0, len(stops) - 1, max(count, 2))[:count]
    channels = [np.interp(at, range(len(stops)), stops[:, channel]) for channel in range(3)]
    return [f"rgb({r:.0f},{g:.0f},{b:.0f})" for r, g, b in zip(*channels, strict=True)]
