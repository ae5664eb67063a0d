"""Figure of a training run: loss, validation, rates, gradients and updates against step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from workbench.plots import style
from workbench.plots.style import Values, rounded
from workbench.readings import logged, noise_scale, scalar_kind, tabled

PANELS = {
    "loss": ("training loss [nat/token]", style.BLUE),
    "validation_bits_per_byte": ("validation [bit/byte]", style.GREEN),
    "learning_rate": ("learning rate [1]", style.ORANGE),
    "grad_norm": ("gradient norm [1]", style.PURPLE),
    "grad_norm_by_kind": ("gradient norm by kind [1]", style.PURPLE),
    "update_ratio": ("update over weight [1]", style.BLUE),
    "zero_update_share": ("updates that are zero [1]", style.ORANGE),
    "clipped": ("clipped updates [1]", style.ORANGE),
    "noise_scale": ("gradient noise scale [token]", style.GREEN),
    "scalars": ("learned scalar [1]", style.BLUE),
}
NAMED = ("grad_norm_by_kind", "noise_scale")  # panels whose lines bear their names
MOST = 1000  # points of one line: more cannot be seen
Lines = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Line:
    """One line of a panel, thinned to the lowest and highest point of each stretch."""

    panel: str
    label: str  # what it is called, where a panel has several
    steps: list[int]
    values: list[float | None]
    place: float  # of the label, as a share of the line: neighbours have theirs elsewhere

    @property
    def size(self) -> int:
        """How often the points could be halved."""
        return len(self.steps).bit_length() - 1

    @property
    def text(self) -> list[str] | None:
        """The label at one of the points, or None for a line without.

        The point is another only where the line has grown to twice its points: plotly takes no text
        that moves from one point to another, until it draws a figure anew.
        """
        at = int(self.place * 2**self.size)
        named = self.label and self.panel in NAMED
        return [self.label if n == at else "" for n in range(len(self.steps))] if named else None


def training(
    metrics: Lines | xr.Dataset, *, most: int = MOST, scalars: str | None = None
) -> go.Figure:
    """Draw what a run logged, a panel a quantity; what was never logged has no panel.

    Behind the loss (faint, each step) runs its median over a twentieth of the steps. Long runs are
    thinned to the lowest and highest point of each stretch, so that spikes stay. Beside the
    gradient noise scale stand its rough interval, and the tokens of a step.

    Parameters
    ----------
    metrics : sequence of mapping, or Dataset over step
        Lines of ``metrics.jsonl``, or what `readings.tabled` makes of them.
    most : int
        Points of one line.
    scalars : str, optional
        A kind of learned scalars to draw: ``q_gain``, ``alpha``; the first by name is gold.
    """
    lines = training_lines(metrics, most=most, scalars=scalars)
    panels = [name for name in PANELS if any(line.panel == name for line in lines)]
    n_row = max(1, math.ceil(len(panels) / 2))
    columns = 2 if len(panels) > 1 else 1
    spacing = {"horizontal_spacing": 0.11, "vertical_spacing": min(0.16, 0.32 / n_row)}
    figure = make_subplots(n_row, columns, **spacing)
    for number, name in enumerate(panels):
        place = {"row": number // 2 + 1, "col": number % 2 + 1}
        title, colour = PANELS[name]
        found = [line for line in lines if line.panel == name]
        inks = {"loss": [colour] * 2, "grad_norm_by_kind": style.SERIES}
        inks["scalars"] = style.depth_colours(len(found))
        for line, ink in zip(found, inks.get(name, [colour] + [style.GREY] * 3), strict=False):
            figure.add_trace(_trace(line, title, ink), **place)
        figure.update_yaxes(title_text=title, **place)
        figure.update_xaxes(title_text="optimizer step [1]", **place)
        if name == "loss":
            figure.data[0].update(opacity=0.35, line_width=1)
        spiky = name in ("grad_norm", "update_ratio") and _is_spiked(found[0].values)
        if name in NAMED or spiky:
            figure.update_yaxes(type="log", **place)
        if name == "learning_rate":
            figure.update_yaxes(rangemode="tozero", **place)
    if panels:
        figure.update_xaxes(range=reach(lines))
    figure.update_layout(showlegend=False)
    return style.styled(figure, height=70 + 250 * n_row)


def training_lines(
    metrics: Lines | xr.Dataset, *, most: int = MOST, scalars: str | None = None
) -> list[Line]:
    """Return the lines of `training` in their order."""
    table, found = tabled(metrics), list[tuple[str, str, Values, Values]]()
    for panel in PANELS:
        steps, values = logged(table, panel)
        if panel == "clipped":
            values = _running(values).mean().to_numpy()
        found.append((panel, "", steps, values))
        if panel == "loss":
            found.append((panel, "running median", steps, _running(values).median().to_numpy()))
    for name in map(str, table):
        panel, _, label = name.partition(".")
        if panel == "grad_norm_by_kind" or (scalars and scalar_kind(name) == scalars):
            found.append((panel, label, *logged(table, name)))
    scale = noise_scale(table)
    for label, name in {"": "noise_scale", "at least": "low", "at most": "high"}.items():
        found.append(("noise_scale", label, *logged(scale.where(scale > 0), name)))
    steps, tokens = logged(table, "tokens")
    if scale.sizes["step"] and len(steps) > 1:
        found.append(("noise_scale", "a step", steps[1:], np.diff(tokens) / np.diff(steps)))
    found.sort(key=lambda each: list(PANELS).index(each[0]))  # as they are drawn
    found = [each for each in found if each[2].size]
    return [_line(*each, most=most, place=(n % 4 + 0.8) / 4) for n, each in enumerate(found)]


def reach(lines: Sequence[Line]) -> list[float | None]:
    """Return the range of steps of all panels."""
    steps = [step for line in lines for step in (line.steps[0], line.steps[-1])]
    room = 0.02 * (max(steps) - min(steps)) or 1.0
    return rounded([min(steps) - room, max(steps) + room])


def _line(
    panel: str, label: str, steps: Values, values: Values, *, most: int, place: float
) -> Line:
    """Thin a line."""
    kept = style.extremes(values, most)
    numbers = rounded(values[kept], digits=5)
    return Line(panel, style.escaped(label), [int(step) for step in steps[kept]], numbers, place)


def _is_spiked(values: list[Any]) -> bool:
    """Tell whether values are told apart on a logarithmic axis alone."""
    return min(values) > 0 and max(values) > 20 * float(np.median(values))


def _running(values: Values) -> Any:
    """Return a centred window of a twentieth of the points, at least 5."""
    width = 1 + 2 * max(2, len(values) // 40)
    return pd.Series(values).rolling(width, center=True, min_periods=1)


def _trace(line: Line, title: str, colour: str) -> go.Scatter:
    """Draw one line; points show where there are few."""
    mode = "lines+markers" if len(line.steps) <= 30 else "lines"
    named = {"text": line.text, "textposition": "top center", "mode": f"{mode}+text"}
    said = title if line.panel == "loss" or not line.label else "%{fullData.name}"
    return go.Scatter(
        x=line.steps,
        y=line.values,
        name=line.label or title,
        line={"color": colour, "width": 2},
        marker={"size": 5},
        opacity=1,
        hovertemplate=f"step %{{x:,}}<br>{said} %{{y}}<extra></extra>",
        **(
            named | {"textfont_color": style.INK, "cliponaxis": False}
            if line.text
            else {"mode": mode}
        ),
    )
