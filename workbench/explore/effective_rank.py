"""Which blocks and matrices to share, drop, factor or leave; is the embedding wasted."""

from functools import cache
from typing import Any

import ipywidgets as widgets
import xarray as xr

from workbench import readings
from workbench.explore.panel import Panel
from workbench.explore.subject import Subject
from workbench.folder import InputError, RunFolder, write_json
from workbench.plots.view import View
from workbench.result import difference

BOTH = "difference"
CUTS = (4, 2)  # a truncation is shown at these parts of a matrix's rank beside the chosen one
CALL = "readings.rank_evidence({0}('effective_rank'), activation={0}('activation'), "
CALL += "ablation={0}('ablation'))"
MEASURES = {
    "activation": "activation",
    "weights": "effective_rank_ratio",
    "weights over own initialisation": "initial",
    "alpha (expert)": "alpha",
}


def effective_rank(run: str, other: str = "") -> Panel:
    """Set ranks beside what ablation costs, open one matrix, cut it, write the experiment.

    Parameters
    ----------
    run : str
        Name of a run.
    other : str, optional
        A second run, whose ranks and costs are subtracted.

    Returns
    -------
    Panel
        Controls: `show` of two runs; `measure` in the cells; `matrix`, set by clicks; `keep`, its
        rank after truncation (0: not asked); `change`, what the experiment would do. The button
        writes it into the run's folder.
    """
    seen = _Views(run, other)
    first = seen.evidence[run]
    mine = first.get("activation", first.effective_rank_ratio)
    names = mine.matrix.values.tolist()
    controls = {
        "show": widgets.ToggleButtons(options=[BOTH, run, other] if other else [run]),
        "measure": widgets.ToggleButtons(options=MEASURES),
        "matrix": widgets.Dropdown(options=names, value=names[int(mine.argmin("matrix"))]),
        "keep": widgets.IntSlider(max=_size(first), description="keep rank"),
        "change": widgets.Dropdown(options=["factor", "share", "drop"], description="experiment"),
    }
    controls["show"].layout.display = "" if other else "none"

    def write() -> str:
        matrix, change, keep = (controls[name].value for name in ("matrix", "change", "keep"))
        found = [seen.overview(run, "activation"), seen.corners(run), seen.spectrum(run, matrix)]
        said = [view.sentence for view in (*found, seen.cut(run, matrix, keep)) if view]
        here = first.sel(matrix=matrix)
        return _write(seen.subjects[run].folder, here, change=change, keep=keep, evidence=said)

    return Panel(
        f"Effective rank of {run}" + (f" and {other}" if other else ""),
        views=[seen.overview, seen.corners, seen.rows, seen.spectrum, seen.cut],
        controls=controls,
        actions={"write experiment": write},
    )


class _Views:
    """The views of one run or two; what was measured is kept."""

    def __init__(self, run: str, other: str) -> None:
        self.subjects = {name: Subject(name) for name in (run, other) if name}
        for subject in self.subjects.values():
            if "singular_value" not in subject.group("effective_rank"):
                del subject._groups["effective_rank"]  # saved before spectra were: measure anew
        self.evidence = {name: _evidence(each) for name, each in self.subjects.items()}
        self.base = cache(lambda name: self._sample(name).rows.losses(self._sample(name).model))
        self.first, self.other = run, other

    def overview(self, show: str, measure: str) -> View:
        """Show ranks by block and role, over what a block is worth."""
        found = self._shown(show)
        said = readings.rank_map(found["data"], measure=measure)
        drawn = measure if measure in found["data"] else "effective_rank_ratio"
        return View(plot="effective_rank", sentence=said, options={"measure": drawn}, **found)

    def corners(self, show: str) -> View | None:
        """Show rank beside need."""
        found = self._shown(show)
        said = readings.rank_corners(found["data"])
        judged = {"cost", "activation"} <= set(found["data"])
        return View(plot="rank_corners", sentence=said, **found) if judged else None

    def _alone(self, show: str) -> str:
        """Say whose numbers these are, where no difference is drawn."""
        return f"{self.first} alone: " if show == BOTH else ""

    def rows(self, show: str) -> View:
        """Show the embedding."""
        data, code = self._group(show, "embedding")
        said = self._alone(show) + readings.embedding(data)
        return View(plot="embedding", data=data, sentence=said, code=code)

    def spectrum(self, show: str, matrix: str) -> View:
        """Show one matrix."""
        ranks, code = self._group(show, "effective_rank")
        data = ranks.sel(matrix=matrix)
        said = self._alone(show) + readings.spectrum(data)
        said += readings.heads(self._group(show, "head_rank")[0], matrix)
        code += f".sel(matrix={matrix!r})"
        return View(plot="spectrum", data=data, sentence=said, code=code)

    def cut(self, show: str, matrix: str, keep: int) -> View | None:
        """Show what truncating the matrix costs, once a rank is asked for."""
        if not keep:
            return None
        from workbench import diagnostics

        name = self._name(show)
        size, sample = _size(self.evidence[name].sel(matrix=[matrix])), self._sample(name)
        ranks = sorted({min(keep, size), *(max(1, size // part) for part in CUTS)})
        data = diagnostics.truncation(
            sample.model, sample.rows, matrix=matrix, ranks=ranks, base=self.base(name)
        ).assign_attrs(chosen=min(keep, size))
        code = f"sample = explore.Subject({name!r}).sample\ndiagnostics.truncation(sample.model, "
        code += f"sample.rows, matrix={matrix!r}, ranks={ranks})"
        said = self._alone(show) + readings.truncation(data)
        return View(plot="truncation", data=data, sentence=said, code=code)

    def _name(self, show: str) -> str:
        """Say which run stands for itself where two are compared."""
        return self.first if show == BOTH else show

    def _sample(self, name: str) -> Any:
        """Open a run on its text."""
        return self.subjects[name].sample

    def _group(self, show: str, group: str) -> tuple[xr.Dataset, str]:
        """Return a diagnostic of a run, and the call that gives it."""
        name = self._name(show)
        return self.subjects[name].group(group), f"explore.Subject({name!r}).group({group!r})"

    def _shown(self, show: str) -> dict[str, Any]:
        """Return the evidence of a run or the difference of two, and the calls that give it."""
        runs = [self.first, self.other] if show == BOTH else [show]
        calls = [CALL.format(f"explore.Subject({name!r}).group") for name in runs]
        if show != BOTH:
            return {"data": self.evidence[show], "code": calls[0]}
        data = difference(self.evidence[self.first], self.evidence[self.other])
        return {"data": data, "code": f"result.difference({', '.join(calls)})"}


def _evidence(subject: Subject) -> xr.Dataset:
    """Put rank and cost of a run side by side, as far as they apply to it."""
    found: dict[str, xr.Dataset | None] = {}
    for name in ("activation", "ablation"):
        try:
            found[name] = subject.group(name)
        except InputError:
            found[name] = None
    return readings.rank_evidence(subject.group("effective_rank"), **found)


def _size(ds: xr.Dataset) -> int:
    """Return the largest rank that a matrix can have."""
    return int(min(ds.rows.max(), ds.columns.max()))


def _write(run: RunFolder, here: xr.Dataset, *, change: str, keep: int, evidence: list[str]) -> str:
    """Write an experiment into the run's folder, and say whether train can run it today."""
    record = run.record()
    model, block, name = record["model"], int(here.block), here.matrix.item()
    changed: dict[str, Any] = {"share_blocks": [max(block - 1, 0), max(block, 1)]}
    if change == "factor":
        changed = {"factor": {name: keep or round(float(here.effective_rank))}}
    elif block < 0:
        changed = {"tie_embeddings": True} if change == "share" else {"vocab_size": "smaller"}
    elif change == "drop":
        changed = {"n_layer": model["n_layer"] - 1}
    elif here.role.item() in ("key", "value") and model["n_kv_head"] > 1:
        changed = {"n_kv_head": model["n_kv_head"] // 2}
    missing = sorted(set(changed) - set(model))
    path = run.path / "experiments" / f"effective-rank-{change}-{name}.yaml"
    parameters = {"seed": record["seed"], "model": {**model, **changed}}
    told = {"compare_with": run.name, "parameters": parameters, "changed": changed}
    write_json(path, {**told, "not_yet_supported": missing, "evidence": evidence})
    ready = "train supports it: pass its parameters with -p, the rest as in this run"
    if missing:
        ready = f"train does not know {', '.join(missing)} yet: this needs code before it can run"
    return f"Wrote {path.relative_to(run.path)}, which changes {changed}; {ready}."
