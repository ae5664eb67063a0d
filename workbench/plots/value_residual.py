"""Figure of the value residual: how much of an earlier value each visit mixes in."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from workbench.plots.style import (
    INK,
    axis_title,
    depth_colours,
    escaped,
    hover,
    rounded,
    styled,
)


def value_residual(ds: xr.Dataset) -> go.Figure:
    """Draw the mix of every visit against step, and what it amounts to at the last step.

    Left: the signed mix that is really applied, a line a visit, gold for the first visits and blue
    for the last (with a single step: a bar a visit). Right, in the same colours: the share of the
    mixed value's norm that comes from the earlier value (bar), and its signed projection
    (diamond). A long line with a short bar is a gate that opened on nothing.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name; visits without an earlier value are NaN.
    """
    table = ds if "step" in ds.dims else ds.expand_dims("step")
    mixed = np.isfinite(table.alpha_effective.values).any(
        axis=table.alpha_effective.dims.index("step")
    )
    table = table.isel(visit=np.flatnonzero(mixed))
    last = table.isel(step=-1)
    colours = depth_colours(table.sizes["visit"])
    labels = [_label(last.isel(visit=index)) for index in range(table.sizes["visit"])]
    figure = make_subplots(1, 2, column_widths=[0.56, 0.44], horizontal_spacing=0.14)
    has_course = table.sizes["step"] > 1
    if has_course:
        figure.add_traces(_course(table, labels, colours), rows=1, cols=1)
    else:
        figure.add_trace(_bars(last, "alpha_effective", labels, colours), row=1, col=1)
    figure.add_trace(_bars(last, "contribution_share", labels, colours), row=1, col=2)
    if "contribution" in last:
        figure.add_trace(_projection(last, labels), row=1, col=2)
    figure.add_trace(_numbers(last, labels), row=1, col=2)
    _axes(figure, table, has_course=has_course)
    return styled(figure, height=max(300, 120 + 28 * len(labels)))


def _label(point: xr.Dataset) -> str:
    """Name a visit, and its block where the two differ."""
    visit = escaped(point.visit.item()) if "visit" in point.coords else "?"
    block = escaped(point.block.item()) if "block" in point.coords else visit
    return f"visit {visit}" if block == visit else f"visit {visit} (block {block})"


def _course(table: xr.Dataset, labels: list[str], colours: list[str]) -> list[go.Scatter]:
    """Draw the applied mix of each visit against step."""
    lines = []
    for index, (label, colour) in enumerate(zip(labels, colours, strict=True)):
        one = table.isel(visit=index)
        steps = one.step.values.tolist()
        facts = [
            hover(one.isel(step=at), title=f"{label}, step {step}") for at, step in enumerate(steps)
        ]
        lines.append(
            go.Scatter(
                x=steps,
                y=rounded(one.alpha_effective.values),
                name=label,
                mode="lines+markers",
                showlegend=False,
                line={"color": colour, "width": 2},
                marker={"size": 4},
                hovertext=facts,
                hoverinfo="text",
            )
        )
    return lines


def _bars(last: xr.Dataset, name: str, labels: list[str], colours: list[str]) -> go.Bar:
    """Draw one variable at the last step, a bar a visit."""
    values = last[name].values
    return go.Bar(
        x=rounded(values),
        y=labels,
        orientation="h",
        marker={"color": colours},
        text=None if name == "contribution_share" else [_number(value) for value in values],
        textposition="outside",
        cliponaxis=False,
        showlegend=False,
        hovertext=_last_facts(last, labels),
        hoverinfo="text",
    )


def _projection(last: xr.Dataset, labels: list[str]) -> go.Scatter:
    """Mark the signed projection on the mixed value."""
    return go.Scatter(
        x=rounded(last.contribution.values),
        y=labels,
        mode="markers",
        name="signed projection on the mixed value",
        showlegend=True,
        marker={"symbol": "diamond-open", "size": 9, "color": INK, "line": {"width": 1.6}},
        hovertext=_last_facts(last, labels),
        hoverinfo="text",
    )


def _numbers(last: xr.Dataset, labels: list[str]) -> go.Scatter:
    """Write the share beyond its bar and its diamond."""
    shares = np.nan_to_num(last.contribution_share.values)
    ends = shares
    if "contribution" in last:
        ends = np.maximum(shares, np.nan_to_num(last.contribution.values))
    return go.Scatter(
        x=rounded(ends),
        y=labels,
        mode="text",
        text=[f"&nbsp;&nbsp;&nbsp;{_number(each)}" for each in last.contribution_share.values],
        textposition="middle right",
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )


def _number(value: float) -> str:
    """Write a value in two decimals, or that there is none."""
    return f"{value:.2f}" if np.isfinite(value) else "not measured"


def _last_facts(last: xr.Dataset, labels: list[str]) -> list[str]:
    """List the facts of each visit at the last step."""
    return [hover(last.isel(visit=index), title=label) for index, label in enumerate(labels)]


def _axes(figure: go.Figure, table: xr.Dataset, *, has_course: bool) -> None:
    """Title the axes; leave room for the numbers beside the bars."""
    last = table.isel(step=-1)
    rows = {"type": "category", "autorange": "reversed", "showgrid": False}
    if has_course:
        figure.update_xaxes(title_text="optimizer step [1]", row=1, col=1)
        figure.update_yaxes(title_text=axis_title(table.alpha_effective, width=34), row=1, col=1)
    else:
        figure.update_xaxes(
            title_text=axis_title(table.alpha_effective),
            range=_range(last.alpha_effective.values),
            row=1,
            col=1,
        )
        figure.update_yaxes(rows, row=1, col=1)
    shares = [last[name].values for name in ("contribution_share", "contribution") if name in last]
    figure.update_xaxes(
        title_text=axis_title(table.contribution_share, width=48),
        range=_range(np.concatenate([*shares, [1.0]])),
        row=1,
        col=2,
    )
    figure.update_yaxes(rows, row=1, col=2)
    figure.update_layout(legend={"x": 1, "xanchor": "right"})


def _range(values: NDArray[np.float64]) -> list[float]:
    """Return a range from 0 over all values, with room for a number at either end."""
    finite = np.append(values[np.isfinite(values)], 0.0)
    room = 0.14 * float(finite.max() - finite.min())
    low = float(finite.min()) - (room if finite.min() < 0 else 0.0)
    return [round(low, 4), round(float(finite.max()) + (room if finite.max() > 0 else 0.0), 4)]
