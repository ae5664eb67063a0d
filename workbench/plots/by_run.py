"""Results of several runs as one, along ``run``, and apart again; figures of one drawn for all."""

import json
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import plotly.graph_objects as go
import xarray as xr

from workbench.plots.style import GREY, INK, SERIES, escaped

SMALLER = 4  # pixels: a mark of the next run, so that it does not hide that of the one before


def join_runs(found: Sequence[xr.Dataset], names: Sequence[str]) -> xr.Dataset:
    """Put results of several runs beside each other, filled up where their labels differ.

    Parameters
    ----------
    found : sequence of Dataset
        One result a run, of one diagnostic.
    names : sequence of str
        Names of the runs.

    Returns
    -------
    Dataset
        With dim ``run``; attr ``by_run`` keeps what `by_run` needs to take it apart exactly.
    """
    kept, numbered = [], []
    for each in found:
        each = each.assign_coords({dim: each[dim] for dim in each.dims})  # 0, 1, .. if unlabelled
        labels = {dim: each[dim].values.tolist() for dim in each.dims}
        kept.append({"attrs": each.attrs, "labels": labels})
        numbered.append(each)
    how: dict[str, Any] = {"data_vars": "all", "coords": "different", "compat": "equals"}
    how |= {"join": "outer", "combine_attrs": "override"}
    joined = xr.concat(numbered, xr.Variable("run", list(names)), **how)
    for name, values in joined.variables.items():
        if values.dtype == object:  # text with gaps
            joined[name] = joined[name].astype(str)
    told = json.dumps(kept, default=lambda value: value.item())
    return joined.drop_attrs(deep=False).assign_attrs(by_run=told)


def by_run(ds: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """Return the result of each run with its name as a label; one run alone has no name."""
    if "by_run" not in ds.attrs:
        return [("", ds)]
    found = []
    for at, said in enumerate(json.loads(ds.attrs["by_run"])):
        alone = ds.isel(run=at, drop=True).drop_attrs(deep=False).sel(said["labels"])
        found.append((escaped(ds.run.values[at]), alone.assign_attrs(said["attrs"])))
    return found


def overlaid(draw: Callable[..., go.Figure]) -> Callable[..., go.Figure]:
    """Let a plot draw what `join_runs` makes: the figures of all runs in one, a colour each.

    What is grey keeps its colour; what hovering skips is drawn once.
    """

    @wraps(draw)
    def drawn(ds: xr.Dataset, **options: Any) -> go.Figure:
        runs = by_run(ds)
        figures = [draw(each, **options) for _, each in runs]
        first = go.Figure(figures[0])
        if len(runs) == 1:
            return first
        whole = go.Figure(layout=first.layout).update_layout(showlegend=True)
        for number, ((run, _), figure) in enumerate(zip(runs, figures, strict=True)):
            ink = SERIES[number % len(SERIES)]
            traces = [trace for trace in figure.data if not number or trace.hoverinfo != "skip"]
            whole.add_traces([_painted(trace, run, ink, SMALLER * number) for trace in traces])
            for shape in figure.layout.shapes if number else ():
                if shape not in first.layout.shapes:
                    whole.add_shape(shape.update(line_color=ink))
            for note in figure.layout.annotations if number else ():
                if note not in first.layout.annotations:
                    whole.add_annotation(note.update(text=f"{run} {note.text}", yshift=-16))
        return whole

    return drawn


def _painted(trace: Any, run: str, ink: str, smaller: int) -> Any:
    """Name a trace after its run and give it the run's colour."""
    trace.name, trace.opacity = f"{run} {trace.name or ''}".strip(), 0.75
    if smaller and trace.type == "scatter" and trace.mode:  # the first has said it
        trace.mode = trace.mode.replace("markers+text", "markers")
    parts = [trace[part] for part in ("line", "marker") if part in trace]
    if not any(part.color in (GREY, INK) for part in parts):
        for part in parts:
            part.color = ink
    if trace.type == "scatter" and type(trace.marker.size) is int:
        trace.marker.size -= smaller
    return trace
