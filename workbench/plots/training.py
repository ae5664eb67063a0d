"""Figure of a training run: loss, validation, learning rate and gradient norm against step."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.plots.style import BLUE, GREEN, ORANGE, PURPLE, Values, extremes, rounded, styled
from workbench.readings import logged

PANELS = {
    "loss": ("training loss [nat/token]", BLUE),
    "validation_bits_per_byte": ("validation [bit/byte]", GREEN),
    "learning_rate": ("learning rate [1]", ORANGE),
    "grad_norm": ("gradient norm [1]", PURPLE),
    "update_ratio": ("update over weight [1]", BLUE),
    "zero_update_share": ("updates that are zero [1]", ORANGE),
}
MOST = 1000  # points of one line: more cannot be seen


def training(metrics: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Draw what a run logged, a panel a quantity; what was never logged has no panel.

    Behind the loss (faint, each step) runs its median over a twentieth of the steps. Long runs are
    thinned to the lowest and highest point of each stretch, so that spikes stay.

    Parameters
    ----------
    metrics : sequence of mapping
        Lines of ``metrics.jsonl``.
    """
    lines = {name: logged(metrics, name) for name in PANELS}
    present = [name for name in PANELS if lines[name][0].size]
    n_row = max(1, math.ceil(len(present) / 2))
    columns = 2 if len(present) > 1 else 1
    figure = make_subplots(n_row, columns, horizontal_spacing=0.11, vertical_spacing=0.16)
    for number, name in enumerate(present):
        place = {"row": number // 2 + 1, "col": number % 2 + 1}
        title, colour = PANELS[name]
        steps, values = lines[name]
        look: dict[str, Any] = {"title": title, "colour": colour}
        figure.add_trace(_trace(steps, values, **look, faint=name == "loss"), **place)
        if name == "loss":
            smooth = _trace(steps, _running_median(values), **look)
            figure.add_trace(smooth.update(name="running median"), **place)
        figure.update_yaxes(title_text=title, **place)
        figure.update_xaxes(title_text="optimizer step [1]", **place)
        if name == "grad_norm" and values.min() > 0 and values.max() > 20 * np.median(values):
            figure.update_yaxes(type="log", **place)
        if name == "learning_rate":
            figure.update_yaxes(rangemode="tozero", **place)
    if present:
        steps = np.concatenate([lines[name][0] for name in present])
        room = 0.02 * float(np.ptp(steps)) or 1.0
        figure.update_xaxes(range=rounded([steps.min() - room, steps.max() + room]))
    figure.update_layout(showlegend=False)
    return styled(figure, height=70 + 250 * n_row)


def _running_median(values: Values) -> Values:
    """Return the median over a centred window of a twentieth of the points, at least 5."""
    width = 1 + 2 * max(2, len(values) // 40)
    return pd.Series(values).rolling(width, center=True, min_periods=1).median().to_numpy()


def _trace(
    steps: Values, values: Values, *, title: str, colour: str, faint: bool = False
) -> go.Scatter:
    """Draw one line; points show where there are few."""
    kept = extremes(values, MOST)
    return go.Scatter(
        x=[int(step) for step in steps[kept]],
        y=rounded(values[kept], digits=5),
        name=title,
        mode="lines+markers" if len(steps) <= 30 else "lines",
        line={"color": colour, "width": 1 if faint else 2},
        marker={"size": 5},
        opacity=0.35 if faint else 1,
        hovertemplate="step %{x:,}<br>" + title + " %{y}<extra></extra>",
    )
