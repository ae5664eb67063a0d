"""Figure of the logit prior: which part of the margin made the winner win."""

from collections import Counter

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from workbench.plots.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    VERMILLION,
    escaped,
    hover,
    rounded,
    styled,
    token,
)

PARTS = {"bias": VERMILLION, "prior": ORANGE, "context": BLUE}
VERDICTS = {"bias": VERMILLION, "prior": ORANGE, "both": PURPLE, "joint": GREY, "context": BLUE}
FEW = 12  # records that still get a row each
ROWS = 24  # rows of one figure


def logit_prior(ds: xr.Dataset) -> go.Figure:
    """Draw the winner's margin as bias + prior + context, and what each record's verdict is.

    A row is a profile; with few records, one record; with many records in one profile, the
    records that one winner wins. Rows that owe most to bias and prior come first. Parts add up to
    the margin (diamond); a part left of 0 spoke for the rival.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    groups = _groups(ds)
    shown = sorted(groups, key=lambda label: -_without_context(groups[label]))[:ROWS]
    rows = {label: groups[label] for label in shown}
    figure = make_subplots(
        1, 2, column_widths=[0.66, 0.34], horizontal_spacing=0.03, shared_yaxes=True
    )
    told = {"y": shown, "hovertext": [_facts(*row) for row in rows.items()], "hoverinfo": "text"}
    left = [*(_part(rows, *part) for part in PARTS.items()), _margin(rows)]
    figure.add_traces([trace.update(told) for trace in left], rows=1, cols=1)
    right = [_verdicts(rows, *verdict) for verdict in VERDICTS.items()]
    figure.add_traces([trace.update(told) for trace in right], rows=1, cols=2)
    units = ds.margin.attrs.get("units", "1")
    figure.update_xaxes(title_text=f"part of the winner's margin, mean [{units}]", row=1, col=1)
    figure.update_xaxes(title_text="share of records by verdict [1]", range=[0, 1], row=1, col=2)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    figure.update_layout(barmode="relative")
    return styled(figure, height=max(280, 130 + 30 * len(rows)))


def _groups(ds: xr.Dataset) -> dict[str, xr.Dataset]:
    """Split records into the rows of the figure."""
    count = ds.sizes["record"]
    if count <= FEW:
        labels = [_pair(ds.isel(record=index), number=index) for index in range(count)]
    else:
        profiles = [escaped(each) for each in ds.profile.values] if "profile" in ds.coords else []
        winners = [f"{token(each)} wins" for each in ds.winner.values]
        labels = profiles if len(set(profiles)) > 1 else winners
    members: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    return {
        f"{label}  (n {len(at)})" if count > FEW else label: ds.isel(record=at)
        for label, at in members.items()
    }


def _pair(point: xr.Dataset, *, number: int) -> str:
    """Name one record by its winner and rival."""
    winner, rival = (token(each.item(), longest=14) for each in (point.winner, point.rival))
    return f"{number}: {winner} over {rival}"


def _without_context(group: xr.Dataset) -> float:
    """Return the mean of bias and prior together; unmeasured sorts last."""
    value = float((group.bias + group.prior).mean(skipna=False))
    return value if np.isfinite(value) else -np.inf


def _part(rows: dict[str, xr.Dataset], part: str, colour: str) -> go.Bar:
    """Draw one part of the margin, its mean in each row; a click chooses the row's profile."""
    means = [float(group[part].mean(skipna=False)) for group in rows.values()]
    look = {"orientation": "h", "marker": {"color": colour}}
    named = [group for group in rows.values() if "profile" in group.coords]
    profiles = [str(group.profile.values[0]) for group in named]
    sets = {"customdata": profiles, "meta": {"sets": "chosen"}} if named else {}
    return go.Bar(x=rounded(means), name=part, **look, **sets)


def _margin(rows: dict[str, xr.Dataset]) -> go.Scatter:
    """Mark the mean margin."""
    means = rounded([float(group.margin.mean(skipna=False)) for group in rows.values()])
    mark = {"symbol": "diamond", "size": 9, "color": INK, "line": {"width": 1, "color": "#fff"}}
    look = {"mode": "markers", "marker": mark, "name": "margin"}
    return go.Scatter(x=means, **look)


def _verdicts(rows: dict[str, xr.Dataset], verdict: str, colour: str) -> go.Bar:
    """Draw the share of one verdict in each row, its count inside."""
    counts = [int((group.verdict == verdict).sum()) for group in rows.values()]
    sizes = [group.sizes["record"] for group in rows.values()]
    words = [(verdict if max(sizes) == 1 else str(count)) if count else "" for count in counts]
    inside = {"textposition": "inside", "textangle": 0, "insidetextanchor": "middle"}
    look = {"orientation": "h", "marker": {"color": colour}, "name": verdict, "text": words}
    shown = verdict not in PARTS and any(counts)
    share = rounded(np.divide(counts, sizes))
    return go.Bar(x=share, showlegend=shown, **look, **inside)


def _facts(label: str, group: xr.Dataset) -> str:
    """List a record's facts, or the means and the commonest tokens of a group."""
    if group.sizes["record"] == 1:
        point = group.isel(record=0)
        names = [name for name in ("profile", "target", "winner", "rival") if name in point.coords]
        told = [f"{name}: {token(point[name].item())}" for name in names]
        return "<br>".join([hover(point, title=label), *told])
    numbers = group[[name for name in group.data_vars if group[name].dtype.kind == "f"]]
    means = numbers.mean("record", skipna=False, keep_attrs=True)
    lines = [hover(means, title=f"{label}, means")]
    for name in ("winner", "rival", "verdict", "pressure"):
        if name in group.variables:
            common = Counter(str(each) for each in group[name].values).most_common(3)
            lines.append(f"{name}: " + ", ".join(f"{token(text)} ({n})" for text, n in common))
    return "<br>".join(lines)
