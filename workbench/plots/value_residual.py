"""Figure of the value residual: how much of an earlier value each visit mixes in."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from workbench.plots.style import INK, axis_title, depth_colours, escaped, hover, rounded, styled


def value_residual(ds: xr.Dataset) -> go.Figure:
    """Draw the mix of every visit against step, and what it amounts to at the last step.

    Left: the signed mix that is really applied, a line a visit, gold for the first visits and blue
    for the last (with a single step: a bar a visit); dotted, where all began. Right, in the same
    colours: the share of the mixed value's norm that comes from the earlier value (bar), and its
    signed projection (diamond). A long line with a short bar is a gate that opened on nothing; a
    long bar with a diamond at 0 is mixed in and taken back. A click chooses a visit.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name; visits without an earlier value are NaN.
    """
    table = ds if "step" in ds.dims else ds.expand_dims("step")
    table = table.isel(visit=np.flatnonzero(np.isfinite(table.alpha_effective).any("step")))
    last, visits = table.isel(step=-1), range(table.sizes["visit"])
    labels = [_label(last.isel(visit=index)) for index in visits]
    colours = depth_colours(len(labels))
    common: dict[str, Any] = {"hoverinfo": "text", "meta": {"sets": "visit"}}
    bars = common | {
        "y": labels,
        "hovertext": [hover(last.isel(visit=index), title=labels[index]) for index in visits],
        "showlegend": False,
        "customdata": table.visit.values.tolist(),
    }
    flat = {"orientation": "h", "marker": {"color": colours}, "cliponaxis": False}
    figure = make_subplots(1, 2, column_widths=[0.56, 0.44], horizontal_spacing=0.14)
    sided = {"type": "category", "autorange": "reversed", "showgrid": False}
    if table.sizes["step"] > 1:
        figure.add_traces(_course(table, labels, colours, common), rows=1, cols=1)
        figure.update_xaxes(title_text="optimizer step [1]", row=1, col=1)
        figure.update_yaxes(title_text=axis_title(table.alpha_effective, width=34), row=1, col=1)
        if "init_effective" in ds.attrs:
            began = float(ds.attrs["init_effective"])
            figure.add_hline(began, line={"color": INK, "dash": "dot", "width": 1}, row=1, col=1)
    else:
        mix = last.alpha_effective.values
        numbers = {"text": [f"{each:.2f}" for each in mix], "textposition": "outside"}
        figure.add_trace(go.Bar(x=rounded(mix), **bars, **flat, **numbers), row=1, col=1)
        title = axis_title(table.alpha_effective, width=34)
        figure.update_xaxes(title_text=title, range=_range(mix), row=1, col=1)
        figure.update_yaxes(sided, row=1, col=1)
    share = last.contribution_share.values
    figure.add_trace(go.Bar(x=rounded(share), **bars, **flat), row=1, col=2)
    ends = np.nan_to_num(share)
    if "contribution" in last:
        name = "signed projection on the mixed value (the number is the bar)"
        mark = {"symbol": "diamond-open", "size": 9, "color": INK, "line": {"width": 1.6}}
        diamonds = go.Scatter(
            x=rounded(last.contribution.values), name=name, mode="markers", **bars
        )
        figure.add_trace(diamonds.update(showlegend=True, marker=mark), row=1, col=2)
        ends = np.maximum(ends, np.nan_to_num(last.contribution.values))
    told = [f"&nbsp;&nbsp;&nbsp;{each:.2f}" for each in share]
    style = {"mode": "text", "textposition": "middle right", "cliponaxis": False}
    figure.add_trace(go.Scatter(x=rounded(ends), text=told, **bars, **style), row=1, col=2)
    reach = _range(np.append(ends, [1.0, *last.get("contribution", last.contribution_share)]))
    title = axis_title(table.contribution_share, width=48)
    figure.update_xaxes(title_text=title, range=reach, row=1, col=2)
    figure.update_yaxes(sided, row=1, col=2)
    figure.update_layout(legend={"x": 1, "xanchor": "right"})
    return styled(figure, height=max(300, 120 + 28 * len(labels)))


def _label(point: xr.Dataset) -> str:
    """Name a visit, and its block where the two differ."""
    visit, block = escaped(point.visit.item()), escaped(point.get("block", point.visit).item())
    return f"visit {visit}" if block == visit else f"visit {visit} (block {block})"


def _course(
    table: xr.Dataset, labels: list[str], colours: list[str], common: dict[str, Any]
) -> list[go.Scatter]:
    """Draw the applied mix of each visit against step."""
    steps, lines = table.step.values.tolist(), []
    for index, (label, colour) in enumerate(zip(labels, colours, strict=True)):
        one = table.isel(visit=index)
        at = zip(range(len(steps)), steps, strict=True)
        line = go.Scatter(x=steps, y=rounded(one.alpha_effective.values), name=label, **common)
        line.update(mode="lines+markers", showlegend=False, line={"color": colour, "width": 2})
        line.hovertext = [hover(one.isel(step=i), title=f"{label}, step {s}") for i, s in at]
        line.customdata = [one.visit.item()] * len(steps)
        lines.append(line.update(marker={"size": 4}))
    return lines


def _range(values: NDArray[np.float64]) -> list[float]:
    """Return a range from 0 over all values, with room for a number at either end."""
    low, high = float(np.nanmin([0, *values])), float(np.nanmax([0, *values]))
    room = 0.14 * (high - low)
    return [round(low - room * (low < 0), 4), round(high + room * (high > 0), 4)]
