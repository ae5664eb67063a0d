"""Which of context, capacity, head, prior and trunk is at fault; may a checkpoint be promoted."""

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any

import ipywidgets as widgets
import xarray as xr

from workbench import readings, text
from workbench.explore.panel import Panel
from workbench.explore.subject import Subject
from workbench.plots.profile_targets import cell_names
from workbench.plots.view import View
from workbench.result import difference

Profiles = Mapping[str, Sequence[text.Record]]
BOTH = "difference"


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
    judged = {name: _Judged(name, table) for name in (run, other) if name}
    bare = [name for name, each in judged.items() if not each.has_profiles]
    if bare:
        told = f"{bare[0]} has no profiles: pass profiles='TABLE.csv' with prompt,target columns."
        empty = View(plot="routing_audit", data=xr.Dataset(), sentence=told)
        return Panel(f"Routing of {run}", views=[lambda: empty], controls={})
    first = judged[run].saved
    cells = cell_names(first)
    shown = [BOTH, run, other] if other else [run]
    steps = first.step.values.tolist()
    controls = {
        "show": widgets.ToggleButtons(options=shown, layout={"display": "" if other else "none"}),
        "step": widgets.SelectionSlider(options=steps, value=steps[-1], description="step"),
        "cell": widgets.Dropdown(options=["", *cells], description="cell"),
    }

    def climb(show: str, step: int) -> View:
        audits = [each.audit(step) for name, each in judged.items() if show in (BOTH, name)]
        data = difference(*audits) if show == BOTH else audits[0]
        calls = [each.code(step) for name, each in judged.items() if show in (BOTH, name)]
        return View(
            plot="routing_audit",
            data=data,
            sentence=readings.routing_audit(data),
            code=f"result.difference({', '.join(calls)})" if show == BOTH else calls[0],
        )

    def of(show: str) -> _Judged:
        return judged[run if show == BOTH else show]

    def targets(show: str, step: int) -> View:
        data = of(show).audit(step)
        said = readings.profile_targets(data)
        return View(plot="profile_targets", data=data, sentence=said, code=of(show).code(step))

    def history(show: str) -> View:
        data = of(show).saved
        said, code = readings.checkpoints(data), of(show).code(steps[-1], "audit_checkpoints")
        return View(plot="checkpoints", data=data, sentence=said, code=code)

    def records(show: str, step: int, cell: str) -> View | None:
        return of(show).cell(step, *cells[cell], plot="routing_records") if cell else None

    def margins(show: str, step: int, cell: str) -> View | None:
        return of(show).cell(step, *cells[cell], plot="logit_prior") if cell else None

    title = f"Routing of {run}" + (f" and {other}" if other else "")
    return Panel(title, views=[climb, targets, history, records, margins], controls=controls)


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
        said = getattr(readings, plot)(data)
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
        return View(plot=plot, data=data, sentence=said, code=code)

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
