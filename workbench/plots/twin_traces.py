"""Traces of plotly drawn by matplotlib: what the static twin of a figure is made of."""

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from plotly.colors import get_colorscale

from workbench.plots.style import INK, extremes

Spec = Mapping[str, Any]
CELLS, WRITTEN, SHADES = 400, 200, 25  # of a heatmap: cells, cells with text, different colours
DASHES = {"dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3))}
SYMBOLS = {"square": "s", "diamond": "D", "x": "X", "cross": "P", "star": "*", "line-ns": "|"}
SYMBOLS |= {"triangle-up": "^", "triangle-down": "v", "line-ew": "_", "hexagon": "h"}


def plain(label: object) -> str:
    r"""Turn a plotly label into plain text: its few tags and its entities, and nothing else.

    Examples
    --------
    >>> plain("<b>a</b> &lt;i&gt;<br>b")
    'a <i>\nb'
    """
    text = re.sub(r"<br ?/?>", "\n", str("" if label is None else label))
    text = html.unescape(re.sub(r"</?(?:b|i|em|strong|su[bp]|span|[usa])(?: [^>]*)?>", "", text))
    return "".join(each if each.isprintable() or each in "\n\xa0" else "\ufffd" for each in text)


def colour(value: Any) -> tuple[float, ...]:
    """Read a colour of plotly, ``rgb()`` and ``rgba()`` included, as shares of 1."""
    from matplotlib.colors import to_rgba

    if found := re.match(r"rgba?\((.*)\)", str(value)):
        red, green, blue, *opacity = (float(each) for each in found[1].split(","))
        return (red / 255, green / 255, blue / 255, *(opacity or [1.0]))
    return to_rgba(value)


def listed(value: Any, count: int) -> list[Any]:
    """Return one value a point: what is given, or the one for all."""
    return list(value) if isinstance(value, list | tuple | np.ndarray) else [value] * count


def scatter(axes: Any, trace: Spec, x: Any, y: Any, *, look: Spec) -> Any:
    """Draw an area, a line, markers, error bars and text; return what stands for them.

    Parameters
    ----------
    look : mapping
        What is shared: `mode`, `ink`, `most` (points of a line) and the figure's `layout`.
    """
    from matplotlib.lines import Line2D

    line, fill, ink = trace.get("line", {}), trace.get("fill", "none"), look["ink"]
    hand = {"color": ink, "alpha": trace.get("opacity"), "ls": "", "marker": ""}
    free = trace.get("cliponaxis", True)
    if fill != "none":
        area = {"color": colour(trace.get("fillcolor") or (*ink[:3], 0.2)), "lw": 0}
        axes.fill_between(x, axes.lines[-1].get_ydata(), y, **area)  # tonexty: all that is used
    if "lines" in look["mode"]:
        hand |= {"ls": DASHES.get(line.get("dash"), "-"), "lw": line.get("width", 2)}
        kept = np.arange(len(y)) if fill != "none" else extremes(y, look["most"])
        axes.plot(x[kept], y[kept], clip_on=free, **hand)
    if "markers" in look["mode"] and len(x):
        marker, rim = trace.get("marker", {}), trace.get("marker", {}).get("line", {})
        few = np.linspace(0, len(x) - 1, min(len(x), look["most"] // 4)).round().astype(int)
        symbols = np.array(listed(marker.get("symbol", "circle"), len(x)), str)[few]
        faces = paints(marker.get("color", ink), len(x))[few]
        sizes = np.array(listed(marker.get("size", 6), len(x)), float)[few]
        rim_ink = colour(rim["color"]) if isinstance(rim.get("color"), str) else None
        for symbol in dict.fromkeys(symbols):
            here, hollow = symbols == symbol, "-open" in symbol
            face, size = faces[here], sizes[here]
            if not np.ptp(size) and not np.ptp(face, axis=0).any():  # one symbol, used many times
                size, face = size[:1], face[:1]
            hand["marker"] = SYMBOLS.get(symbol.removesuffix("-open"), "o")
            style = {"facecolors": "none" if hollow else face, "alpha": trace.get("opacity")}
            style |= {"edgecolors": rim_ink or face, "clip_on": free, "marker": hand["marker"]}
            style |= {"linewidths": rim.get("width", 1.6 if hollow else 0), "zorder": 2.5}
            axes.scatter(x[few][here], y[few][here], size**2, **style)
            hand |= {"ms": min(size[0], 9), "mec": face[0], "mfc": "none" if hollow else face[0]}
    errors(axes, trace, x, y)
    if "text" in look["mode"]:
        said = listed(trace.get("textposition", "middle center"), len(x))
        words(axes, listed(trace.get("text", ""), len(x)), (x, y), said, [INK] * len(x))
    return Line2D([], [], **hand) if hand["ls"] or hand["marker"] else None


def bar(axes: Any, trace: Spec, x: Any, y: Any, *, look: Spec) -> Any:
    """Draw bars of a given `width` from a given `base`, and what they say; see `scatter`."""
    from matplotlib.patches import Patch

    sideways = trace.get("orientation") == "h"
    place, length = (y, x) if sideways else (x, y)
    place, base, end = place + look["shift"], look["base"], look["base"] + length
    face = paints(look["ink"], len(place))
    face[:, 3] *= trace.get("opacity", 1)
    thick = {"height": look["width"], "left": base}
    thick = thick if sideways else {"width": look["width"], "bottom": base}
    (axes.barh if sideways else axes.bar)(place, length, color=face, **thick)
    errors(axes, trace, *((end, place) if sideways else (place, end)))
    if trace.get("text") is not None:
        inside = [w == "inside" for w in listed(trace.get("textposition", "outside"), len(end))]
        beyond = ("middle left", "middle right") if sideways else ("bottom center", "top center")
        spot = np.where(inside, (base + end) / 2, end)
        sides = np.where(inside, "middle center", np.where(length < 0, *beyond)).tolist()
        inks = [contrast(f) if within else INK for f, within in zip(face, inside, strict=True)]
        at = (spot, place) if sideways else (place, spot)
        words(axes, listed(trace["text"], len(end)), at, sides, inks)
    return Patch(color=face[0]) if len(face) else None


def heatmap(axes: Any, trace: Spec, x: Any, y: Any, *, look: Spec) -> Any:
    """Draw cells with their text; of too many, the means of blocks. Return their colours."""
    cells = np.array([[math.nan if v is None else v for v in row] for row in trace["z"]], float)
    fold = math.ceil(math.sqrt(cells.size / CELLS))
    if fold > 1:
        room = [(0, -n % fold) for n in cells.shape]
        blocks = np.pad(cells, room, constant_values=math.nan)
        blocks = blocks.reshape(blocks.shape[0] // fold, fold, -1, fold)
        said = f"drawn coarsely: a cell is the mean of {fold} by {fold}"
        axes.annotate(said, (1, 1), (0, 3), "axes fraction", "offset points", ha="right")
        cells = np.nanmean(blocks, axis=(1, 3))
        x, y = (v[::fold] + (fold - 1) / 2 * np.diff(v[:2]).sum() for v in (x, y))
    shade = shades(cells, trace, look["layout"])
    edges = [np.interp(np.arange(len(v) + 1) - 0.5, range(len(v)), v) for v in (x, y)]
    for edge, v in zip(edges, (x, y), strict=True):
        half = np.diff(v)[[0, -1]] / 2 if len(v) > 1 else np.array([0.5, 0.5])
        edge[[0, -1]] = v[0] - half[0], v[-1] + half[1]
    mesh = {"cmap": shade.cmap, "norm": shade.norm, "clip_on": False, "antialiased": False}
    axes.pcolormesh(*edges, np.ma.masked_invalid(cells), **mesh)
    if trace.get("texttemplate") and cells.size <= WRITTEN:
        at = [each.ravel() for each in np.meshgrid(x, y)]
        inks = [contrast(each) for each in shade.to_rgba(cells.ravel())]
        words(axes, np.ravel(trace["text"]).tolist(), at, ["middle center"] * cells.size, inks)
    return shade


def table(axes: Any, trace: Spec, letters: int) -> None:
    """Write a table over the whole plot, each text cut to its share of a row's letters."""
    cells = trace["cells"]["values"]
    heads = [
        listed(each, 1)[0] for each in trace.get("header", {}).get("values", [""] * len(cells))
    ]
    wide = np.array(listed(trace.get("columnwidth", 1), len(cells)), float)
    left = (np.cumsum(wide) - wide) / wide.sum()
    for at, column in enumerate(cells):
        most = int(wide[at] / wide.sum() * letters) - 1
        for row, text in enumerate([heads[at], *column]):
            lines = [
                t if len(t) <= most else t[: most - 1] + "\u2026" for t in plain(text).split("\n")
            ]
            spot = (left[at], 1 - (row + 0.5) / (len(column) + 1))
            axes.text(*spot, "\n".join(lines), va="center", weight="normal" if row else "bold")


def shades(numbers: Any, own: Spec, layout: Spec) -> Any:
    """Return the colours of numbers, on a trace's own scale or the one that it shares."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    scale = layout.get(own["coloraxis"], {}) if "coloraxis" in own else own
    limit = {key[1:]: value for key, value in scale.items() if re.fullmatch("[cz]m(in|ax|id)", key)}
    finite = numbers[np.isfinite(numbers)] if np.isfinite(numbers).any() else np.zeros(1)
    low, high = float(finite.min()), float(finite.max())
    if "mid" in limit:
        low, high = (limit["mid"] + sign * abs(finite - limit["mid"]).max() for sign in (-1, 1))
    stops = scale.get("colorscale") or "Viridis"
    stops = get_colorscale(stops) if isinstance(stops, str) else stops
    steps = [colour(s) if isinstance(s, str) else (float(s[0]), colour(s[1])) for s in stops]
    colours = LinearSegmentedColormap.from_list("shades", steps, N=SHADES)
    norm = Normalize(limit.get("min", low), limit.get("max", high))
    return ScalarMappable(norm, colours.reversed() if scale.get("reversescale") else colours)


def paints(paint: Any, count: int) -> Any:
    """Return one colour a point, as an array of four columns."""
    paint = [paint] * count if isinstance(paint, str | tuple) else list(paint)
    return np.array([colour(each) for each in paint]).reshape(-1, 4)


def contrast(paint: Any) -> str:
    """Return the ink that reads on a colour."""
    red, green, blue, opacity = paint
    pale = 0.3 * red + 0.59 * green + 0.11 * blue > 0.55
    return INK if opacity < 0.5 else "#2a2f36" if pale else "#f3f4f6"


def words(axes: Any, texts: Sequence[Any], at: Any, places: Sequence[str], inks: Any) -> None:
    """Write a text at each point; its place is like ``middle right``."""
    for text, x, y, place, ink in zip(texts, *at, places, inks, strict=True):
        if text and np.isfinite(x + y):
            up, _, side = place.partition(" ")
            shift = {"left": -6, "right": 6}.get(side, 0), {"top": 6, "bottom": -6}.get(up, 0)
            across = {"left": "right", "right": "left"}.get(side, "center")
            upright = {"top": "bottom", "bottom": "top"}.get(up, "center")
            look = {"ha": across, "va": upright, "color": colour(ink), "annotation_clip": False}
            axes.annotate(plain(text), (x, y), shift, textcoords="offset points", **look)


def errors(axes: Any, trace: Spec, x: Any, y: Any) -> None:
    """Draw error bars."""
    for letter in "xy":
        said = trace.get(f"error_{letter}", {})
        if said.get("array") is not None and said.get("visible", True):
            sides = [np.array(said.get(k, said["array"]), float) for k in ("arrayminus", "array")]
            look = {"ecolor": colour(said.get("color", INK)), "elinewidth": 1.4, "capsize": 3}
            axes.errorbar(x, y, fmt="none", **{f"{letter}err": np.nan_to_num(sides)}, **look)
