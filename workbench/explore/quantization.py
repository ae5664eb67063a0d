"""What the bytes of an artifact buy: which matrix deserves more of them, and which tokens pay."""

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import xarray as xr

from workbench import readings
from workbench.explore.compared import Compared, seen
from workbench.explore.panel import Panel
from workbench.explore.subject import Subject
from workbench.plots.view import View

ALONG = {"prediction": "predicted_cost", "bytes": "bytes", "bits a weight": "bits_per_weight"}
LEAST = 0.01  # bit/byte that are healthy however little the artifact cost when it was made
CALL = "explore.Subject({!r}).group('quantization')"


def quantization(run: str, other: str = "") -> Panel:
    """Look at what each matrix of an artifact costs, who pays, and what survives.

    Parameters
    ----------
    run : str
        Name of a run that has an artifact.
    other : str, optional
        A second run, drawn over the first.

    Returns
    -------
    Panel
        Controls: `show` of two runs; `along`, what cost is drawn against; `matrix`, set by clicks.
        The button looks for tensors that break the artifact.
    """
    runs = Compared(run, other)
    subjects = {name: Subject(name) for name in runs.names}
    saved = {name: _saved(subject) for name, subject in subjects.items()}

    def drawn(show: str, plot: str, told: Callable[[xr.Dataset], str], **options: Any) -> View:
        def one(name: str) -> View:
            return seen(plot, saved[name], CALL.format(name), said=told(saved[name]), **options)

        return runs.view(show, one)

    def overview(show: str, along: str, matrix: str) -> View:
        told = readings.quantization if along == "predicted_cost" else readings.quantized_bytes
        return drawn(show, "quantization", told, along=along, chosen=matrix)

    def frontier(show: str) -> View | None:
        def one(name: str) -> View:
            code = f"readings.artifacts(folder.find_run({name!r}).record())"
            return seen("frontier", readings.artifacts(subjects[name].folder.record()), code)

        records = [subjects[name].folder.record() for name in runs.shown(show)]
        known = all(each.get("artifacts") and each.get("evaluation") for each in records)
        return runs.view(show, one) if known else None

    def find() -> str:
        from workbench import diagnostics

        of, record = subjects[run].sample, subjects[run].folder.record()
        made = (record.get("artifacts") or {}).get(record.get("artifact"), {})
        given = {"rows": of.rows, "healthy": max(LEAST, 2 * (made.get("gap") or 0))}
        return readings.culprits(diagnostics.culprits(of.model, of.quantized[1], **given))

    controls = {"show": runs.control, "along": widgets.ToggleButtons(options=ALONG)}
    controls["matrix"] = widgets.Dropdown(options=saved[run].matrix.values.tolist())
    views: list[Any] = [
        overview,
        lambda show: drawn(show, "parts", readings.predictors, name="rho"),
        lambda show: drawn(show, "parts", readings.quantized_tokens, name="cost_by_class"),
        lambda show: drawn(show, "parts", readings.quantized_tokens, name="cost_by_decile"),
        lambda show: drawn(show, "survival", readings.survival),
        frontier,
    ]
    title = f"Artifact of {run}" + (f" and {other}" if other else "")
    return Panel(title, views=views, controls=controls, actions={"find culprits": find})


def _saved(subject: Subject) -> xr.Dataset:
    """Return the diagnostic, of the artifact that the run has now."""
    path, found = subject.folder.path / "artifact.wba", subject.group("quantization")
    if path.exists() and found.attrs["artifact"] != path.read_bytes()[-16:].hex():
        del subject._groups["quantization"]
        return subject.group("quantization")
    return found
