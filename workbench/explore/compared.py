"""One run or two in a panel: their difference, or both in one figure."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ipywidgets as widgets
import xarray as xr

from workbench import readings
from workbench.plots.by_run import join_runs
from workbench.plots.view import View
from workbench.result import difference

BOTH = "difference"


class Compared:
    """One run or two, as the control ``show`` chooses between them."""

    def __init__(self, run: str, other: str) -> None:
        self.names = [name for name in (run, other) if name]
        options = [BOTH, *self.names] if other else self.names
        hidden = {"display": "" if other else "none"}
        self.control = widgets.ToggleButtons(options=options, layout=hidden, description="show")

    def shown(self, show: str) -> list[str]:
        """Return the names of the runs that are shown."""
        return self.names if show == BOTH else [show]

    def view(
        self,
        show: str,
        draw: Callable[[str], View],
        *,
        reading: Callable[[xr.Dataset], str] | None = None,
        subtract: Callable[[xr.Dataset, xr.Dataset], xr.Dataset] = difference,
    ) -> View:
        """Return the view of one run, or the same of both.

        With a `reading` it is of their difference; else both are in one figure, with the first
        sentence of each: readings begin with what matters most.
        """
        names = self.shown(show)
        views = [draw(name) for name in names]
        if len(views) == 1:
            return views[0]
        made = [view.code.rpartition("\n") for view in views]
        code = "".join(
            f"{one[0]}\n{name} = {one[2]}\n" for name, one in zip("ab", made, strict=True)
        )
        found = [view.data for view in views]
        if reading is None:
            data, call = join_runs(found, names), f"plots.join_runs([a, b], {names})"
            firsts = [view.sentence.split(". ")[0].rstrip(".") for view in views]
            said = " ".join(f"{name}: {one}." for name, one in zip(names, firsts, strict=True))
        else:
            data, call = subtract(*found), "result.difference(a, b)"
            said = f"{' less '.join(names)}: {reading(data)}"
        return replace(views[0], data=data, sentence=said, code=f"{code}{call}".strip())


def seen(plot: str, data: xr.Dataset, code: str, *, said: str = "", **options: Any) -> View:
    """Make a view with the reading of its name, or another."""
    said = said or readings.reading(plot, data)
    return View(plot=plot, data=data, sentence=said, code=code, options=options)
