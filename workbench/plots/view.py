"""A view: numbers, the figure that draws them, the sentence that says them, the calls behind."""

import hashlib
import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench import plots
from workbench.folder import digest, replacing
from workbench.result import check


@dataclass(frozen=True, kw_only=True)
class View:
    """One figure as a value. Shown as plotly, and as SVG and text where scripts do not run."""

    plot: str  # name of a function in workbench.plots
    data: xr.Dataset  # what it draws
    sentence: str  # what it shows, computed from `data`
    code: str = ""  # the library calls that give `data`
    options: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of the plot

    def __str__(self) -> str:
        """Write the sentence in lines that a notebook does not break inside a word."""
        return textwrap.fill(self.sentence, 96)

    @cached_property
    def figure(self) -> go.Figure:
        """The complete figure."""
        figure: go.Figure = getattr(plots, self.plot)(self.data, **self.options)
        return figure

    @cached_property
    def hash(self) -> str:
        """SHA-256 of names, dims and values of `data`, hexadecimal."""
        running = hashlib.sha256()
        for name in sorted(map(str, self.data.variables)):
            values = self.data[name]
            running.update(f"{name}{values.dims}{values.shape}".encode())
            content = np.asarray(values.values)
            running.update(str(content.tolist()).encode() if content.dtype == object else b"")
            running.update(np.ascontiguousarray(content).tobytes())
        return running.hexdigest()

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits for numbers, drawing and sentence together."""
        drawn = json.dumps(dict(self.options), sort_keys=True)
        return digest(self.hash, self.plot, drawn, self.sentence, self.code)[:12]

    def save(self, folder: Path) -> Path:
        """Freeze the view as ``KEY.nc`` in a folder: its numbers, and how they are shown."""
        path = folder / f"{self.key}.nc"
        words = {name: getattr(self, name) for name in ("plot", "sentence", "code")}
        frozen = check(self.data).assign_attrs(
            view=json.dumps(words | {"options": dict(self.options)})
        )
        with replacing(path) as scratch:
            frozen.to_netcdf(scratch, engine="h5netcdf")
        return path

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Read back what `save` wrote."""
        data = xr.load_dataset(path, engine="h5netcdf")
        return cls(data=data, **json.loads(data.attrs.pop("view")))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Give every reader what it can show; GitHub and a cut network take SVG and text."""
        from workbench.plots.twin import svg  # draws with another library, slow to import

        return {
            "application/vnd.plotly.v1+json": self.figure.to_plotly_json(),
            "image/svg+xml": svg([self.figure]),
            "text/plain": self.sentence,
        }
