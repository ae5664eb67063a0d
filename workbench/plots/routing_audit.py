"""Figure of the routing audit: which profiles own their answers, which collapsed."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from workbench.plots.style import (
    BLUE,
    FAINT,
    GREY,
    INK,
    VERMILLION,
    axis_title,
    escaped,
    hover,
    rounded,
    styled,
    token,
)
from workbench.readings import judgeable

PALE = "rgba(86,180,233,0.45)"


def routing_audit(ds: xr.Dataset) -> go.Figure:
    """Draw a row a profile, worst first: owned, covered and missing answers; the dominant answer.

    Left: the share of a profile's targets that are predicted for a record of their own (owned),
    only somewhere else in the profile (covered, not owned), and nowhere; the diamond is accuracy.
    Right: the share of records that get the commonest answer, vermillion where the profile is
    collapsed, then the root cause. A profile with one target, or whose contexts cannot decide
    the answer, is not judged (grey).

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    rows = worst_first(ds)
    labels = [_label(rows.isel(profile=index)) for index in range(rows.sizes["profile"])]
    figure = make_subplots(
        1, 3, column_widths=[0.5, 0.26, 0.24], horizontal_spacing=0.03, shared_yaxes=True
    )
    figure.add_traces(_coverage(rows, labels), rows=1, cols=1)
    figure.add_trace(_dominant(rows, labels), row=1, col=2)
    figure.add_trace(_causes(rows, labels), row=1, col=3)
    left = {"title": {"text": "share of the profile's targets [1]"}, "range": [0, 1.5]}
    right = {"title": {"text": axis_title(ds.dominant_rate, width=36)}, "range": [0, 1.02]}
    figure.update_xaxes(left | {"tickvals": [0, 0.5, 1]}, col=1)
    figure.update_xaxes(right | {"tickvals": [0, 0.5, 1]}, col=2)
    figure.update_xaxes(range=[0, 1], visible=False, col=3)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    figure.update_layout(barmode="stack")
    return styled(figure, height=max(260, 130 + 34 * len(labels)))


def worst_first(ds: xr.Dataset) -> xr.Dataset:
    """Sort profiles: judged before unjudged, low ownership, high dominance, name."""
    unjudged = ~judgeable(ds)
    names = np.asarray([str(each) for each in ds.profile.values])
    order = np.lexsort((names, -ds.dominant_rate.values, ds.owned_coverage.values, unjudged))
    return ds.isel(profile=order)


def _label(point: xr.Dataset) -> str:
    """Name a profile with its number of records."""
    return f"{escaped(point.profile.item())}  (n {int(point.records)})"


def _coverage(rows: xr.Dataset, labels: list[str]) -> list[go.Bar | go.Scatter]:
    """Split the targets of each profile: owned, covered elsewhere, missing; mark accuracy."""
    owned, covered = rows.owned_coverage.values, rows.target_coverage.values
    facts = [hover(rows.isel(profile=at), title=label) for at, label in enumerate(labels)]
    parts = [
        ("owned", owned, BLUE),
        ("covered, not owned", covered - owned, PALE),
        ("missing", 1 - covered, FAINT),
    ]
    bars = [
        go.Bar(
            x=rounded(values),
            y=labels,
            name=name,
            orientation="h",
            marker={"color": colour},
            hovertext=facts,
            hoverinfo="text",
        )
        for name, values, colour in parts
    ]
    look = {"symbol": "diamond", "size": 10, "color": INK, "line": {"width": 1, "color": "#fff"}}
    accuracy = go.Scatter(
        x=rounded(rows.accuracy.values),
        y=labels,
        name="accuracy",
        mode="markers",
        marker=look,
        hovertext=facts,
        hoverinfo="text",
    )
    told = [
        f"{round(float(k * n))} of {n} owned" if np.isfinite(k) else "not measured"
        for k, n in zip(owned, rows.target_unique.values.astype(int), strict=True)
    ]
    words = go.Scatter(
        x=[1.03] * len(labels),
        y=labels,
        mode="text",
        text=told,
        textposition="middle right",
        hoverinfo="skip",
        showlegend=False,
    )
    return [*bars, accuracy, words]


def _dominant(rows: xr.Dataset, labels: list[str]) -> go.Bar:
    """Draw how often the commonest answer is given, with that answer where it is known."""
    rates = rows.dominant_rate.values
    collapsed = rows.collapsed.values.astype(bool)
    unjudged = ~judgeable(rows)
    colours = [
        GREY if alone else VERMILLION if fallen else BLUE
        for alone, fallen in zip(unjudged, collapsed, strict=True)
    ]
    tokens = [""] * len(labels)
    if "dominant_token" in rows:
        tokens = [f" {token(each, longest=12)}" for each in rows.dominant_token.values]
    return go.Bar(
        x=rounded(rates),
        y=labels,
        orientation="h",
        marker={"color": colours},
        text=[f"{rate:.2f}{token}" for rate, token in zip(rates, tokens, strict=True)],
        textposition=["inside" if rate > 0.6 else "outside" for rate in rates],
        cliponaxis=False,
        hovertext=[hover(rows.isel(profile=at), title=label) for at, label in enumerate(labels)],
        hoverinfo="text",
        showlegend=False,
    )


def _causes(rows: xr.Dataset, labels: list[str]) -> go.Scatter:
    """Write the root cause of each profile beside its bar."""
    words = []
    judged = judgeable(rows)
    for index in range(len(labels)):
        point = rows.isel(profile=index)
        cause = escaped(str(point.root_cause.item()).replace("_", " "))
        if point.target_unique < 2:
            cause = "one target"
        if not judged[index]:
            words.append(f"not judged: {cause}")
        else:
            words.append("<b>collapsed</b>" if bool(point.collapsed) else cause)
    return go.Scatter(
        x=[0] * len(labels),
        y=labels,
        mode="text",
        text=words,
        textposition="middle right",
        hoverinfo="skip",
        showlegend=False,
    )
