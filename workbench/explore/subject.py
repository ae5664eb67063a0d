"""What a panel is about: a run, its saved diagnosis, and its model once something asks for it."""

from functools import cached_property
from typing import Any

import xarray as xr

from workbench.folder import InputError, RunFolder, find_run
from workbench.plots.report import open_diagnosis


class Subject:
    """A run as panels see it; nothing heavy is loaded before it is needed."""

    def __init__(self, name: str) -> None:
        self.folder: RunFolder = find_run(name)
        self.name = self.folder.name

    @cached_property
    def sample(self) -> Any:
        """The run opened on its text; see `diagnostics.Sample`."""
        from workbench import diagnostics, evaluation

        return diagnostics.sample(evaluation.open_run(self.folder.path))

    @cached_property
    def _groups(self) -> dict[str, xr.Dataset]:
        """Groups of the saved diagnosis."""
        try:
            tree = open_diagnosis(self.folder)
        except InputError:
            return {}
        return {name: node.to_dataset() for name, node in tree.children.items()}

    def group(self, name: str) -> xr.Dataset:
        """Return one diagnostic of the run, measured and saved now if it was not before.

        Raises
        ------
        InputError
            If it does not apply to this run.
        """
        if name not in self._groups:
            from workbench import diagnostics, evaluation

            run = evaluation.open_run(self.folder.path)
            found = diagnostics.diagnose(run, only=[name])
            diagnostics.save_diagnosis(run, found)
            self._groups.update(found)
        return self._groups[name]
