"""Widgets: choose or import, then call diagnostics and plots. Nothing is computed here."""

import contextlib
import html
import re
import textwrap
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import xarray as xr

from workbench import readings, runs
from workbench.folder import PROJECT, InputError, RunFolder, find_run
from workbench.plots.report import open_diagnosis, run_facts
from workbench.plots.view import View
from workbench.result import provenance


class RunChooser(widgets.VBox):
    """A menu of runs with the facts of the chosen one beneath, and a field to import another.

    Parameters
    ----------
    name : str, optional
        Run to begin with; by default the latest that has weights.

    Raises
    ------
    InputError
        If there is none of that name. Without any run the menu is empty.
    """

    def __init__(self, name: str | None = None) -> None:
        options = _options()
        names = [run for _, run in options]
        if name is not None and name not in names:
            find_run(name)  # says which names are near
            raise InputError(
                f"run {name!r}",
                expected="a run that is finished or stopped",
                found="one that is not",
                remedy=f"Wait for it, or choose from: {', '.join(names)}.",
            )
        self.menu = widgets.Dropdown(
            options=options,
            value=name or max(names, key=_changed, default=None),
            description="run",
            layout=widgets.Layout(width="32em"),
        )
        self.facts = widgets.HTML()
        hidden = widgets.Layout(display="none", width="32em")
        self.progress = widgets.FloatProgress(max=1.0, layout=hidden)
        self.menu.observe(self._redraw, names="value")
        self.path = widgets.Combobox(
            description="file",
            placeholder="a checkpoint: .pt, .ptz, or a Hugging Face folder",
            layout=widgets.Layout(width="32em"),
        )
        self.path.observe(self._complete, names="value")
        self.button = widgets.Button(description="import")
        self.button.on_click(self._import)
        self.said = widgets.HTML()
        row = widgets.HBox([self.path, self.button])
        super().__init__([self.menu, self.facts, self.progress, row, self.said])
        self._known: dict[Path, int] = {}
        self._redraw()

    @property
    def folder(self) -> RunFolder:
        """Folder of the chosen run.

        Raises
        ------
        InputError
            If there is none yet.
        """
        if self.menu.value is None:
            raise InputError(
                "data/runs",
                expected="a trained run",
                found="none",
                remedy="Import a checkpoint above, or: make demo, or: python -m workbench train.",
            )
        return find_run(self.menu.value)

    def diagnosis(self) -> xr.DataTree:
        """Open the diagnosis of the chosen run; without a good one, measure it under a bar."""
        if self._known != _files(self.folder):  # it takes a second to open
            self._tree = self._opened()
            self._known = _files(self.folder)
        return self._tree

    def _opened(self) -> xr.DataTree:
        """Read the diagnosis, or measure it."""
        try:
            return open_diagnosis(self.folder)
        except InputError:  # none, damaged, or of other weights
            from workbench import diagnostics, evaluation

            self.progress.layout.display = "flex"
            opened = evaluation.open_run(self.folder.path)
            diagnostics.save_diagnosis(opened, diagnostics.diagnose(opened, watch=self._watch))
            self.progress.layout.display = "none"
        return open_diagnosis(self.folder)

    def reading(self, diagnostic: str) -> str:
        """Say what a diagnostic of the chosen run shows, or that it was not measured."""
        tree = self.diagnosis()
        if diagnostic not in tree.children:
            asked = f"it was not asked for (python -m workbench diagnose {self.folder.name})"
            reason = provenance(tree).get("absent", {}).get(diagnostic, asked)
            return textwrap.fill(f"Not measured: {diagnostic}: {reason}.", 100)
        text = readings.reading(diagnostic, tree[diagnostic].to_dataset())
        return textwrap.fill(text, 100)  # Jupyter breaks a long line inside a word

    def figure(self, diagnostic: str) -> View | None:
        """Return a diagnostic of the chosen run as a view; None where it was not measured."""
        tree = self.diagnosis()
        if diagnostic not in tree.children:
            return None
        run, said = self.folder.name, self.reading(diagnostic)
        code = f"diagnostics.diagnose(evaluation.open_run({run!r}), only=[{diagnostic!r}])"
        return View(plot=diagnostic, data=tree[diagnostic].to_dataset(), sentence=said, code=code)

    def _complete(self, change: Any) -> None:
        """Offer what is in the folder that has been typed so far."""
        typed = Path(self.path.value).expanduser()
        folder = typed if typed.is_dir() else typed.parent
        with contextlib.suppress(OSError):  # not there, or not ours to read
            inside = sorted(each for each in folder.iterdir() if each.name[0] != ".")
            self.path.options = [f"{each}/" if each.is_dir() else str(each) for each in inside]

    def _import(self, button: widgets.Button) -> None:
        """Make a run of the file and choose it; say in place what stands in the way."""
        from workbench import execution  # brings papermill

        path = Path(self.path.value).expanduser().resolve()
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"{path.parent.name}-{path.stem}").strip("-")[:80]
        notebook = PROJECT / "notebooks" / "experiments" / "import.ipynb"
        self.button.disabled, self.said.value = True, "importing; this takes half a minute"
        try:
            made = execution.run_experiment(notebook, name, {"path": str(path)})
            self.menu.options = _options()
            self.menu.value = made.name
            self.said.value = html.escape(made.record()["imported"]["verdict"])
        except (InputError, execution.NotebookFailed) as error:
            self.said.value = html.escape(str(error))
        finally:
            self.button.disabled = False

    def _watch(self, name: str, done: float) -> None:
        """Show what is being measured, and the share that is done."""
        self.progress.value, self.progress.description = done, name

    def _redraw(self, change: Any = None) -> None:
        """Show the facts of the chosen run."""
        if self.menu.value is None:
            self.facts.value = "No run yet: import a checkpoint, or train one (make demo)."
            return
        stale = {"weights": "changed since they were scored: evaluate again"}
        warning = stale if self.folder.is_stale() else {}
        rows = "".join(
            f"<tr><td style='padding-right:1.5em;opacity:.7'>{html.escape(key)}</td>"
            f"<td>{html.escape(str(value))}</td></tr>"
            for key, value in (run_facts(self.folder.record()) | warning).items()
        )
        self.facts.value = f"<table>{rows}</table>"


def choose_run(name: str | None = None) -> RunChooser:
    """Return a menu of runs, beginning with `name`; see `RunChooser`."""
    return RunChooser(name)


def _options() -> list[tuple[str, str]]:
    """List the runs that have weights, each with its label."""
    rows = runs.list_runs()
    return [(_label(row), row["name"]) for row in rows if row["status"] in ("finished", "stopped")]


def _changed(name: str) -> int:
    """Return when a run was last changed."""
    return find_run(name).path.stat().st_mtime_ns


def _label(row: dict[str, Any]) -> str:
    """Name a run in the menu with its result."""
    bpb = row["bits_per_byte"]
    return row["name"] if bpb is None else f"{row['name']} ({bpb:.4f} bit/byte)"


def _files(run: RunFolder) -> dict[Path, int]:
    """Say when each file of a run was written."""
    return {each: each.stat().st_mtime_ns for each in run.path.iterdir()}
