"""Which of context, capacity, head, prior and trunk is at fault; may a checkpoint be promoted."""

from collections.abc import Mapping, Sequence
from functools import cache, cached_property, partial
from typing import Any

import ipywidgets as widgets
import xarray as xr

from workbench import readings, text
from workbench.explore.compared import Compared, seen
from workbench.explore.logit_prior import compared_margins
from workbench.explore.panel import Panel
from workbench.explore.subject import Subject
from workbench.plots.profile_targets import cell_names
from workbench.plots.view import View

Profiles = Mapping[str, Sequence[text.Record]]


def routing_audit(run: str, other: str = "", *, profiles: str = "") -> Panel:
    """Climb the checks of every profile, look at its targets, and at the records of one of them.

    Parameters
    ----------
    run : str
        Name of a run.
    other : str, optional
        A second run, judged at the same step where it kept that, else at its last.
    profiles : str, optional
        A table of prompts and targets, see `text.read_profiles`; by default the profiles of the
        closed world that the run was trained on.

    Returns
    -------
    Panel
        Controls: `show` of two runs, `step`, a kept checkpoint, and `cell`, a target of a profile;
        clicks set them. The table holds the records of the cell with their margins in parts.
    """
    table = text.read_profiles(profiles) if profiles else None
    runs = Compared(run, other)
    judged = {name: _Judged(name, table) for name in runs.names}
    bare = [name for name, each in judged.items() if not each.has_profiles]
    if bare:
        told = f"{bare[0]} has no profiles: pass profiles='TABLE.csv' with prompt,target columns."
        empty = View(plot="routing_audit", data=xr.Dataset(), sentence=told)
        return Panel(f"Routing of {run}", views=[lambda: empty], controls={})
    first = judged[run].saved
    cells = cell_names(first)
    steps = first.step.values.tolist()
    controls = {
        "show": runs.control,
        "step": widgets.SelectionSlider(options=steps, value=steps[-1], description="step"),
        "cell": widgets.Dropdown(options=["", *cells], description="cell"),
    }

    def climb(show: str, step: int) -> View:
        def one(name: str) -> View:
            return seen("routing_audit", judged[name].audit(step), judged[name].code(step))

        return runs.view(show, one, reading=readings.routing_audit)

    def each(name: str, show: str, plot: str, data: xr.Dataset, code: str) -> View | None:
        said = f"{name}: " * bool(other) + readings.reading(plot, data)
        return seen(plot, data, code, said=said) if name in runs.shown(show) else None

    def targets(name: str, show: str, step: int) -> View | None:
        one = judged[name]
        return each(name, show, "profile_targets", one.audit(step), one.code(step))

    def history(name: str, show: str) -> View | None:
        code = judged[name].code(steps[-1], "audit_checkpoints")
        return each(name, show, "checkpoints", judged[name].saved, code)

    def records(name: str, show: str, step: int, cell: str) -> View | None:
        if not cell:
            return None
        found = judged[name].cell(step, *cells[cell], plot="routing_records")
        return each(name, show, found.plot, found.data, found.code)

    def margins(show: str, step: int, cell: str) -> View | None:
        def one(name: str) -> View:
            return judged[name].cell(step, *cells[cell], plot="logit_prior")

        return compared_margins(runs, show, one) if cell else None

    by_run = [partial(draw, name) for draw in (targets, history, records) for name in judged]
    title = f"Routing of {' and '.join(runs.names)}"
    return Panel(title, views=[climb, *by_run, margins], controls=controls)


class _Judged:
    """A run with the profiles it is judged by; what was measured is kept."""

    def __init__(self, name: str, table: Profiles | None) -> None:
        self.subject, self.table = Subject(name), table
        self.audit, self.records = cache(self._audit), cache(self._records)
        self.sample = cache(self._sample)

    @property
    def has_profiles(self) -> bool:
        """Whether there is anything to audit; asks for no model."""
        kind = self.subject.folder.record().get("data", {}).get("kind")
        return self.table is not None or kind == "world"

    @cached_property
    def saved(self) -> xr.Dataset:
        """The audit of the final weights, with the history of the checkpoints."""
        found = self.subject.group("routing_audit") if self.table is None else xr.Dataset()
        if "rung" in found.dims:
            return found
        from workbench import diagnostics

        return diagnostics.audit_checkpoints(self.subject.sample, self.table)

    def opened(self, step: int) -> str:
        """Write the calls that open a checkpoint on its text."""
        run = f"diagnostics.sample(evaluation.open_run({self.subject.name!r}))"
        return f"diagnostics.at_step({run}, {self.near(step)})"

    def code(self, step: int, call: str = "audit_sample") -> str:
        """Write the call that audits a checkpoint."""
        asked = "" if self.table is None else ", text.read_profiles(TABLE)"
        return f"diagnostics.{call}({self.opened(step)}{asked})"

    def near(self, step: int) -> int:
        """Return `step` if these weights were kept, else the last."""
        steps = self.saved.step.values.tolist()
        return step if step in steps else int(steps[-1])

    def cell(self, step: int, profile: str, target: str, *, plot: str) -> View:
        """Show the records of one target of a profile."""
        found = self.records(self.near(step), profile)
        data = found.isel(record=found.target.values == target)
        asked = (
            "sample.data.corpus.world.profiles" if self.table is None else "read_profiles(TABLE)"
        )
        code = (
            f"sample = {self.opened(step)}\n"
            f"states = diagnostics.branch_states(sample.model, {asked}[{profile!r}], "
            "sample.tokenizer, context_length=sample.sequence_length)\n"
            "diagnostics.routing_records(sample.model, states, pieces=sample.tokenizer.pieces, "
            "reference=sample.reference)"
        )
        return seen(plot, data, code)

    def _audit(self, step: int) -> xr.Dataset:
        """Audit the weights of a step."""
        if self.near(step) == self.saved.step.values[-1]:
            return self.saved
        from workbench import diagnostics

        found: xr.Dataset = diagnostics.audit_sample(self.sample(step), self.table)
        return found

    def _sample(self, step: int) -> Any:
        """Open the run with the weights of a step."""
        from workbench import diagnostics

        return diagnostics.at_step(self.subject.sample, step)

    def _records(self, step: int, profile: str) -> xr.Dataset:
        """List the records of a profile."""
        from workbench import diagnostics

        sample = self.sample(step)
        asked = self.table or sample.data.corpus.world.profiles
        pieces, length = sample.tokenizer.pieces, sample.sequence_length
        states = diagnostics.branch_states(
            sample.model, asked[profile], sample.tokenizer, context_length=length
        )
        return diagnostics.routing_records(
            sample.model, states, pieces=pieces, reference=sample.reference
        )
