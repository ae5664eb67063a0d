"""Which blocks and matrices to share, drop, factor or leave; is the embedding wasted."""

from functools import cache, partial
from typing import Any

import ipywidgets as widgets
import numpy as np
import xarray as xr

from workbench import readings
from workbench.explore.compared import Compared, seen
from workbench.explore.panel import Panel
from workbench.explore.subject import Subject
from workbench.folder import InputError, RunFolder, write_json
from workbench.plots.view import View

CUTS = (4, 2)  # a truncation is shown at these parts of a matrix's rank beside the chosen one
CALL = "readings.rank_evidence({0}('effective_rank'), activation={0}('activation'), "
CALL += "ablation={0}('ablation'))"
MEASURES = {
    "activation": "activation",
    "weights": "effective_rank_ratio",
    "weights over own initialisation": "initial",
    "alpha (expert)": "alpha",
}

ENDS = ("first", "last")  # of the blocks that recur


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
    runs = Compared(run, other)
    seen = _Views(runs)
    first = seen.evidence[run]
    mine = first.get("activation", first.effective_rank_ratio)
    names = mine.matrix.values.tolist()
    controls = {
        "show": runs.control,
        "measure": widgets.ToggleButtons(options=MEASURES),
        "matrix": widgets.Dropdown(options=names, value=names[int(mine.argmin("matrix"))]),
        "keep": widgets.IntSlider(max=_size(first), continuous_update=False),
        "change": widgets.Dropdown(options=["factor", "share", "drop"], description="experiment"),
    }

    def follow(_: Any) -> None:
        rank, keep = seen.rank(run, controls["matrix"].value), controls["keep"]
        keep.description = f"keep rank (effective: {rank})"
        keep.value = rank if keep.value else 0  # the model is opened once a rank is asked for

    controls["matrix"].observe(follow, names="value")
    follow(None)

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

    def __init__(self, runs: Compared) -> None:
        self.runs = runs
        self.subjects = {name: Subject(name) for name in runs.names}
        for subject in self.subjects.values():
            if "singular_value" not in subject.group("effective_rank"):
                del subject._groups["effective_rank"]  # saved before spectra were: measure anew
        self.evidence = {name: _evidence(each) for name, each in self.subjects.items()}
        self.one_cut = cache(self._one_cut)
        self.tried: dict[str, set[int]] = {}  # ranks by matrix

    def overview(self, show: str, measure: str) -> View:
        """Show ranks by block and role, over what a block is worth."""
        drawn = measure if measure in self._whole(show) else "effective_rank_ratio"
        told = partial(readings.rank_map, measure=measure)
        return self._judged(show, "effective_rank", told, measure=drawn)

    def corners(self, show: str) -> View | None:
        """Show rank beside need."""
        judged = {"cost", "activation"} <= set(self._whole(show))
        return self._judged(show, "rank_corners", readings.rank_corners) if judged else None

    def rows(self, show: str) -> View:
        """Show the embedding."""
        return self.runs.view(show, lambda name: seen("embedding", *self._group(name, "embedding")))

    def spectrum(self, show: str, matrix: str) -> View:
        """Show one matrix."""

        def one(name: str) -> View:
            ranks, code = self._group(name, "effective_rank")
            data = ranks.sel(matrix=matrix)
            heads = self._group(name, "head_rank")[0]
            said = readings.spectrum(data) + readings.heads(heads, matrix)
            return seen("spectrum", data, f"{code}.sel(matrix={matrix!r})", said=said)

        return self.runs.view(show, one)

    def cut(self, show: str, matrix: str, keep: int) -> View | None:
        """Show what truncating the matrix costs, once a rank is asked for, beside those tried."""
        if not keep:
            return None
        size = _size(self._whole(show).sel(matrix=[matrix]))
        usual = {self.rank(name, matrix) for name in self.runs.shown(show)}
        tried = self.tried.setdefault(matrix, {max(1, size // part) for part in CUTS})
        tried |= (usual | {min(keep, size)}) - {0}
        ranks = sorted(tried)

        def one(name: str) -> View:
            found = [self.one_cut(name, matrix, rank) for rank in ranks]
            data = xr.concat(found, "setting", data_vars="all").assign_attrs(chosen=min(keep, size))
            code = f"sample = explore.Subject({name!r}).sample\ndiagnostics.truncation("
            code += f"sample.model, sample.rows, matrix={matrix!r}, ranks={ranks})"
            return seen("truncation", data, code)

        return self.runs.view(show, one)

    def rank(self, name: str, matrix: str) -> int:
        """Return the effective rank of a matrix; 0 where it has none."""
        found = float(self.evidence[name].effective_rank.sel(matrix=matrix))
        return round(found) if np.isfinite(found) else 0

    def _one_cut(self, name: str, matrix: str, rank: int) -> xr.Dataset:
        """Truncate a matrix to one rank."""
        from workbench import diagnostics

        of = self.subjects[name].trial
        return diagnostics.truncation(of.model, of.rows, matrix=matrix, ranks=[rank], base=of.base)

    def _whole(self, show: str) -> xr.Dataset:
        """Return the evidence of a run, or of the first of two."""
        return self.evidence[self.runs.shown(show)[0]]

    def _group(self, name: str, group: str) -> tuple[xr.Dataset, str]:
        """Return a diagnostic of a run, and the call that gives it."""
        return self.subjects[name].group(group), f"explore.Subject({name!r}).group({group!r})"

    def _judged(self, show: str, plot: str, reading: Any, **options: Any) -> View:
        """Show the evidence of a run or the difference of two."""

        def one(name: str) -> View:
            code = CALL.format(f"explore.Subject({name!r}).group")
            data = self.evidence[name]
            return seen(plot, data, code, said=reading(data), **options)

        return self.runs.view(show, one, reading=reading)


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
        if again := model.get("recurrence"):
            ends = {key: again[key] - (block < again[key] + at) for at, key in enumerate(ENDS)}
            changed["recurrence"] = again | ends if ends["first"] <= ends["last"] else None
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
