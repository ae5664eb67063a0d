"""The static twin of a plotly figure: an SVG for readers that run no scripts.

GitHub, nbconvert, mail and paper show it; it needs neither network nor browser. It is drawn by
matplotlib from the figure's own specification, so it cannot say anything else: what this library
uses of plotly is translated, and a trace of another kind is named. Hover text is lost, long lines
keep the extremes of each stretch, and large heatmaps are averaged and say so.
"""

import io
import math
import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from workbench.plots.style import INK, SERIES
from workbench.plots.twin_traces import (
    DASHES,
    Spec,
    bar,
    colour,
    heatmap,
    listed,
    plain,
    scatter,
    table,
)

POINTS = 2400  # of all lines of a figure together; a marker costs as much as four
LETTER, LINE = 6.4, 14  # pixels: the mean width of a letter, the height of a line
ZERO = "#8080808c"  # of the line at 0
_NUMBER = re.compile(r"-?\d+(\.\d*)?(e[-+]?\d+)?|nan")  # what plotly reads as a number
LOOK: dict[str, Any] = {
    **{"svg.fonttype": "none", "svg.hashsalt": "workbench", "text.parse_math": False},
    **{"font.size": 11, "font.sans-serif": ["DejaVu Sans"], "text.color": INK},
    **{"axes.labelcolor": INK, "axes.labelsize": 11, "xtick.color": INK, "ytick.color": INK},
    **{"axes.facecolor": "none", "figure.facecolor": "none", "legend.frameon": False},
    **{"axes.grid": True, "grid.color": "#8080803a", "grid.linewidth": 1, "axes.axisbelow": True},
    **{f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")},
    **{f"{axis}tick.{kind}.size": 0 for axis in "xy" for kind in ("major", "minor")},
}


def svg(figures: Sequence[go.Figure], width: int = 900) -> str:
    """Draw figures one under the other, as one SVG without scripts, fonts or links.

    The same figures give the same text. The background is transparent and the ink a middle grey.

    Parameters
    ----------
    figures : sequence of Figure
        Complete figures in the house style.
    width : int
        Pixels.
    """
    from matplotlib import style  # slow to import, and only needed once something is displayed
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    specs = [figure.to_plotly_json() for figure in figures]
    heights = [spec["layout"].get("height") or 400 for spec in specs]
    buffer = io.StringIO()
    with style.context(["default", LOOK]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters its own font lacks: the reader's font has them
        canvas = Figure(figsize=(width / 72, max(sum(heights), 1) / 72), dpi=72)
        FigureCanvasAgg(canvas)  # measures text
        for number, spec in enumerate(specs):
            _Sheet(canvas, spec, np.array([0, sum(heights[number + 1 :]), width, heights[number]]))
        canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _lean(buffer.getvalue(), width)


def _lean(text: str, width: int) -> str:
    """Leave out what a browser does not need; without ids, twins can share a page."""
    text = re.sub(r"(?s)^.*?(?=<svg)|<metadata>.*?</metadata>|<!--.*?-->", "", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text).replace("'DejaVu Sans', ", "")
    text = re.sub(r"(?<=\d)\.(\d)\d*(?=[^\d<][^<]*>)", r".\1", text)  # tenths of a pixel will do
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 width="{width}"', text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 style="max-width:100%"', text, count=1)
    return re.sub(r"\s*\n\s*", "\n", text)


class _Sheet:
    """One figure on its part of the canvas, a box of left, bottom, width and height in pixels."""

    def __init__(self, canvas: Any, spec: Spec, box: NDArray[Any]) -> None:
        self.canvas, self.layout, self.box = canvas, spec["layout"], box
        self.template = self.layout.get("template", {}).get("layout", {})
        self.traces = [each for each in spec["data"] if each.get("visible", True) is True]
        self.frames: list[tuple[Any, Sequence[float]]] = []  # axes, and their place in the area
        self.axes: dict[tuple[str, str], Any] = {}
        self.piles: defaultdict[Any, float] = defaultdict(float)
        self.names = self._categories()
        self.paper = self._frame([0, 0, 1, 1])
        self.paper.set_axis_off()
        self.scales: set[str] = set()
        handles = [self._draw(number, trace) for number, trace in enumerate(self.traces)]
        self._limit()
        for pair, axes in self.axes.items():
            for letter, own, other in zip("xy", pair, pair[::-1], strict=True):
                self._dress(axes, letter, own, other)
        self._legend(handles)
        self._marks()
        self._arrange()

    def _frame(self, place: Sequence[float]) -> Any:
        """Add axes at a place: left, bottom, width and height as shares of the plot's area."""
        axes = self.canvas.add_axes((0, 0, 1, 1), label=str(len(self.canvas.axes)))
        self.frames.append((axes, place))
        return axes

    def _axis(self, name: str) -> dict[str, Any]:
        """Return all that is said of an axis."""
        said = self.layout.get(f"{name[0]}axis{name[1:]}", {})
        shared = self._axis(said["overlaying"])["domain"] if "overlaying" in said else [0, 1]
        return {"domain": shared, **self.template.get(f"{name[0]}axis", {}), **said}

    def _root(self, name: str) -> str:
        """Return the axis whose range this one has."""
        matched = self._axis(name).get("matches", name)
        return name if matched == name else self._root(matched)

    def _categories(self) -> dict[str, dict[str, int]]:
        """Give a number to each category of each axis that has some, in their order."""
        found: dict[str, dict[str, int]] = {}
        for trace, letter in product(self.traces, "xy"):
            name = trace.get(f"{letter}axis", letter)
            values = [str(each) for each in listed(trace.get(letter, []), 0) if each is not None]
            kind = self._axis(name).get("type", "-")
            if kind == "category" or (kind == "-" and values and not _NUMBER.fullmatch(values[0])):
                numbered = found.setdefault(self._root(name), {})
                for value in [*(self._axis(name).get("categoryarray") or []), *values]:
                    numbered.setdefault(str(value), len(numbered))
        return found

    def _at(self, values: Sequence[Any], name: str) -> NDArray[Any]:
        """Turn what an axis shows into numbers; gaps are NaN."""
        numbered = self.names.get(self._root(name), {})
        plain_number = [float(v) if _NUMBER.fullmatch(str(v)) else math.nan for v in values]
        return np.array(
            [numbered.get(str(v), n) for v, n in zip(values, plain_number, strict=True)]
        )

    def _draw(self, number: int, trace: Spec) -> Any:
        """Draw one trace on its axes; return what stands for it in the legend."""
        if trace.get("type") == "table":
            return table(self.paper, trace, int(self.box[2] / LETTER))
        pair = (trace.get("xaxis", "x"), trace.get("yaxis", "y"))
        if pair not in self.axes:
            (left, right), (low, high) = (self._axis(name)["domain"] for name in pair)
            self.axes[pair] = self._frame([left, low, right - left, high - low])
            scale = {True: "log", False: "linear"}
            kinds = [scale[self._axis(name).get("type") == "log"] for name in pair]
            self.axes[pair].set(xscale=kinds[0], yscale=kinds[1])
        axes, kind = self.axes[pair], trace.get("type", "scatter").removesuffix("gl")
        points = [len(listed(trace.get(letter, ()), 1)) for letter in "yx"]
        counts = (len(trace["z"][0]), len(trace["z"])) if "z" in trace else points
        given = [trace.get(letter) for letter in "xy"]
        x, y = (
            self._at(range(n) if v is None else list(v), name)
            for v, n, name in zip(given, counts, pair, strict=True)
        )
        mode = trace.get("mode", "lines+markers" if len(x) < 20 else "lines")
        paint = trace.get("line" if "lines" in mode and kind == "scatter" else "marker", {})
        paint = paint.get("color") or trace.get("marker", {}).get("color")
        paint = SERIES[number % len(SERIES)] if paint is None else paint
        look = {"mode": mode, "layout": self.layout, "most": max(60, POINTS // len(self.traces))}
        if kind == "scatter":
            look["ink"] = colour(paint if isinstance(paint, str) else INK)
            return scatter(axes, trace, x, y, look=look)
        if kind == "bar":
            return bar(axes, trace, x, y, look=look | self._pile(trace, x, y) | {"ink": paint})
        if kind == "heatmap":
            self._scale(trace, heatmap(axes, trace, x, y, look=look))
        else:
            self.paper.text(0, 0, f"a {kind}, which only the interactive figure shows")
        return None

    def _pile(self, trace: Spec, x: Any, y: Any) -> dict[str, Any]:
        """Say where the bars of a trace stand: beside the others, or on top of them."""
        keys = ("type", "xaxis", "yaxis")
        rivals = [t for t in self.traces if all(t.get(key) == trace.get(key) for key in keys)]
        place, length = (y, x) if trace.get("orientation") == "h" else (x, y)
        steps = np.diff(np.unique(place[np.isfinite(place)]))
        gap = self.layout.get("bargap", self.template.get("bargap", 0.2))
        width = (1 - gap) * (steps.min() if len(steps) else 1.0)
        base = np.array(listed(trace.get("base", 0.0), len(place)), float)
        mode = self.layout.get("barmode", "group")
        if mode == "group":
            at = next(at for at, each in enumerate(rivals) if each is trace)
            width /= len(rivals)
            return {"width": width, "base": base, "shift": (at - (len(rivals) - 1) / 2) * width}
        for at, value in enumerate(np.nan_to_num(length) if mode != "overlay" else ()):
            key = (trace.get("xaxis"), trace.get("yaxis"), place[at], value < 0)
            base[at] = self.piles[key]
            self.piles[key] += value
        return {"width": width, "base": base, "shift": 0}

    def _scale(self, trace: Spec, shade: Any) -> None:
        """Draw the scale of a heatmap's colours beside it, once where several share it."""
        shared = trace.get("coloraxis", f"own{len(self.scales)}")
        if shared in self.scales or trace.get("showscale") is False:
            return
        self.scales.add(shared)
        said = self.layout.get(shared, trace).get("colorbar", {})
        length, flat = said.get("len", 1), said.get("orientation") == "h"
        thick = said.get("thickness", 12) / self.box[3 if flat else 2]
        low = said.get("y", 0.5) - {"top": 1, "bottom": 0}.get(said.get("yanchor"), 0.5) * length
        place = [0.0, 1.05, length, thick] if flat else [said.get("x", 1.02), low, thick, length]
        lay = {"orientation": "horizontal" if flat else "vertical", "ticks": said.get("tickvals")}
        scale = self.canvas.colorbar(shade, cax=self._frame(place), **lay)
        scale.outline.set_visible(False)
        if said.get("ticktext"):
            scale.set_ticklabels([plain(each) for each in said["ticktext"]])
        scale.set_label(plain(said.get("title", {}).get("text")))

    def _limit(self) -> None:
        """Give axes that match the same range, as said or from what they all show."""
        for at, letter in enumerate("xy"):
            groups: defaultdict[str, list[Any]] = defaultdict(list)
            for pair, axes in self.axes.items():
                groups[self._root(pair[at])].append(axes)
            for name, members in groups.items():
                said = self._axis(name)
                ends = [end for axes in members for end in getattr(axes, f"get_{letter}lim")()]
                if name in self.names:
                    ends = [-0.5, len(self.names[name]) - 0.5]
                else:
                    shapes = self.layout.get("shapes", ())
                    shapes = [each for each in shapes if each.get(f"{letter}ref") == name]
                    ends += [each[f"{letter}{end}"] for each in shapes for end in "01"]
                low, high = min(ends), max(ends)
                if said.get("rangemode") == "tozero":
                    low, high = min(low, 0), max(high, 0)
                if said.get("range"):
                    power = said.get("type") == "log"
                    given = [v if v is None or not power else 10.0**v for v in said["range"]]
                    low, high = (
                        v if v is not None else d for v, d in zip(given, (low, high), strict=True)
                    )
                if said.get("autorange") == "reversed":
                    low, high = high, low
                for axes in members:
                    getattr(axes, f"set_{letter}lim")(low, high)

    def _dress(self, axes: Any, letter: str, name: str, other: str) -> None:
        """Give one axis its ticks, its labels, its title and the line at 0."""
        said, axis = self._axis(name), getattr(axes, f"{letter}axis")
        home = said.get("anchor", "y" if letter == "x" else "x") in (other, "free")
        axis.set_visible(said.get("visible", True) and home)
        axes.grid(said.get("showgrid", True) and "overlaying" not in said, axis=letter)
        room = float(np.ptp(said["domain"])) * self.box[2 if letter == "x" else 3] * 0.8
        labels = [plain(each) for each in self.names.get(self._root(name), ())]
        if said.get("tickvals") is not None:
            low, high = sorted(
                getattr(axes, f"get_{letter}lim")()
            )  # which ticks beyond would widen
            texts = said.get("ticktext") or said["tickvals"]
            ticks = zip(self._at(said["tickvals"], name), map(plain, texts), strict=True)
            axis.set_ticks(
                *zip(*[(at, text) for at, text in ticks if low <= at <= high], strict=True)
            )
        elif labels:
            self._name(axes, letter, labels, room)
        else:
            self._number(axes, letter, said, room)
        if said.get("showticklabels") is False:
            axis.set_ticklabels([])
        if said.get("side") in ("top", "right"):
            getattr(axis, f"tick_{said['side']}")()
            axis.set_label_position(said["side"])
        axis.set_label_text(plain(said.get("title", {}).get("text")))

    def _name(self, axes: Any, letter: str, labels: list[str], room: float) -> None:
        """Label categories: tilted, and not all, where they would overlap."""
        longest = max(len(line) for label in labels for line in label.split("\n")) * LETTER
        tilted = letter == "x" and longest * len(labels) > room
        every = math.ceil(len(labels) * LINE / room) if tilted or letter == "y" else 1
        axis = getattr(axes, f"{letter}axis")
        axis.set_ticks(range(0, len(labels), every), labels[::every])
        for label in axis.get_ticklabels() if tilted else ():
            label.set(rotation=35, ha="right", rotation_mode="anchor")

    def _number(self, axes: Any, letter: str, said: Spec, room: float) -> None:
        """Label numbers, as many as there is room for, and draw the line at 0."""
        from matplotlib import ticker

        axis, style = (
            getattr(axes, f"{letter}axis"),
            (said.get("tickformat") or "").replace("~", ""),
        )
        style = style if re.fullmatch(r"[+,]?(\.\d+)?[efg%]", style) else ".6g"
        most = max(2, round(room / (70 if letter == "x" else 40)))
        axis.set_minor_formatter(ticker.NullFormatter())
        if said.get("type") == "log":
            axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=most))
        else:
            axis.set_major_locator(ticker.MaxNLocator(most, steps=[1, 2, 5, 10]))
            low, high = sorted(getattr(axes, f"get_{letter}lim")())
            if said.get("zeroline", True) and low <= 0 <= high:
                (axes.axvline if letter == "x" else axes.axhline)(0, color=ZERO, lw=1, zorder=0.6)
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: format(value, style)))

    def _legend(self, handles: Sequence[Any]) -> None:
        """List the named traces where the layout puts the legend."""
        said = {**self.template.get("legend", {}), **self.layout.get("legend", {})}
        pairs = zip(self.traces, handles, strict=True)
        named = [pair for pair in pairs if pair[1] and pair[0].get("showlegend", True)]
        shown = {plain(each["name"]): handle for each, handle in reversed(named) if "name" in each}
        asked = len(self.traces) > 1 or any(each.get("showlegend") for each in self.traces)
        if not shown or not self.layout.get("showlegend", asked):
            return
        labels = list(shown)[::-1]
        fits = int(0.8 * self.box[2] / (max(map(len, labels)) * LETTER + 45))
        upright = {"bottom": "lower", "middle": "center"}.get(str(said.get("yanchor")), "upper")
        self.paper.legend(
            *([shown[label] for label in labels], labels),
            loc=f"{upright} {said.get('xanchor', 'left')}",
            bbox_to_anchor=(said.get("x", 1.02), said.get("y", 1)),
            ncols=max(1, min(len(shown), fits)) if said.get("orientation") == "h" else 1,
            borderaxespad=0.2,
        )

    def _marks(self) -> None:
        """Draw the shapes, the title and the notes of the layout."""
        from matplotlib.patches import Polygon
        from matplotlib.transforms import blended_transform_factory

        for shape in self.layout.get("shapes", ()):
            ends = [self._spot(shape, f"{letter}{end}") for letter in "xy" for end in "01"]
            x0, x1, y0, y1 = (value for value, _ in ends)
            line, is_line = shape.get("line", {}), shape.get("type") == "line"
            corners = [(x0, y0), (x1, y1)] if is_line else [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
            face = colour(shape["fillcolor"]) if "fillcolor" in shape else "none"
            look = {"lw": line.get("width", 2), "ls": DASHES.get(line.get("dash"), "-")}
            look |= {"ec": colour(line.get("color", INK)), "fc": face, "clip_on": False}
            where = blended_transform_factory(ends[0][1], ends[2][1])
            self.paper.add_patch(Polygon(corners, closed=not is_line, transform=where, **look))
        title = {"text": self.layout.get("title", {}).get("text"), "x": 0, "y": 1, "yshift": 26}
        title |= {"xref": "paper", "yref": "paper", "showarrow": False, "yanchor": "bottom"}
        for note in (title, *self.layout.get("annotations", ())):
            (x, across), (y, upright) = self._spot(note, "x"), self._spot(note, "y")
            arrow = note.get("showarrow", True)
            side = "left" if x < 1 / 3 else "right" if x > 2 / 3 else "center"
            side = "center" if arrow or note.get("xref") != "paper" else side
            shift = (note.get("xshift", 0), note.get("yshift", 0))
            self.paper.annotate(
                *(plain(note.get("text")), (x, y)),
                xycoords=(across, upright),
                xytext=(note.get("ax", -10), -note.get("ay", -30)) if arrow else shift,
                textcoords="offset points",
                ha=side if note.get("xanchor", "auto") == "auto" else note["xanchor"],
                va={"top": "top", "bottom": "bottom"}.get(note.get("yanchor", ""), "center"),
                color=colour(note.get("font", {}).get("color", INK)),
                arrowprops={"arrowstyle": "-", "color": INK} if arrow else None,
                annotation_clip=False,
            )

    def _spot(self, item: Spec, key: str) -> tuple[float, Any]:
        """Return a coordinate of a note or a shape, and the frame in which it counts."""
        name, _, within = item.get(f"{key[0]}ref", key[0]).partition(" ")
        found = [axes for pair, axes in self.axes.items() if name in pair]
        if within or not found:
            return float(item.get(key, 0)), (found[0] if found else self.paper).transAxes
        return float(self._at([item[key]], name)[0]), found[0].transData

    def _arrange(self) -> None:
        """Shrink the plot's area until everything that hangs over it fits in the box."""
        inside = np.concatenate([self.box[:2] + 4, self.box[:2] + self.box[2:] - 4])
        area, whole = inside.copy(), self.canvas.bbox.size
        for _ in range(3):
            size = area[2:] - area[:2]
            for axes, (x, y, w, h) in self.frames:
                corner = (area[:2] + size * (x, y)) / whole
                axes.set_position((*corner, *(size * (w, h) / whole)))
            renderer = self.canvas.canvas.get_renderer()
            held = [axes.get_tightbbox(renderer).extents for axes, _ in self.frames]
            over = inside - [*np.min(held, 0)[:2], *np.max(held, 0)[2:]]
            if np.abs(over).max() < 1:
                break
            area = area + over
