"""What a panel is about: a run, its saved diagnosis, and its model once something asks for it."""

import contextlib
from functools import cached_property
from typing import Any

import xarray as xr

from workbench.folder import RunFolder, find_run
from workbench.result import provenance


class Subject:
    """A run as panels see it; nothing heavy is loaded before it is needed."""

    def __init__(self, name: str) -> None:
        self.folder: RunFolder = find_run(name)
        self.name = self.folder.name
        self._groups: dict[str, xr.Dataset] = {}
        self._looked: set[str] = set()

    @cached_property
    def sample(self) -> Any:
        """The run opened on its text; see `diagnostics.Sample`."""
        from workbench import diagnostics, evaluation

        return diagnostics.sample(evaluation.open_run(self.folder.path))

    @cached_property
    def trial(self) -> Any:
        """The model beside the rows that it is changed on."""
        from workbench import diagnostics

        return diagnostics.trial(self.sample)

    def _look(self, name: str) -> None:
        """Read a group of the saved diagnosis; all of them would take a second."""
        self._looked.add(name)
        path = self.folder.path / "diagnosis.nc"
        with contextlib.suppress(OSError):  # no file, a damaged one, or none of that name
            known = provenance(xr.load_dataset(path, engine="h5netcdf"))
            if known.get("weights") == self.folder.weights():  # else it is about another model
                self._groups[name] = xr.load_dataset(path, group=name, engine="h5netcdf")

    def group(self, name: str) -> xr.Dataset:
        """Return one diagnostic of the run, measured and saved now if it was not before.

        Raises
        ------
        InputError
            If it does not apply to this run.
        """
        if name not in self._looked:
            self._look(name)
        if name not in self._groups:
            from workbench import diagnostics, evaluation

            run = evaluation.open_run(self.folder.path)
            found = diagnostics.diagnose(run, only=[name])
            diagnostics.save_diagnosis(run, found)
            self._groups.update(found)
        return self._groups[name]
