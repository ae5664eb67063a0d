"""What each part is worth, and which tokens pay when one is changed."""

from functools import cache, partial
from typing import Any

import ipywidgets as widgets
import xarray as xr

from workbench import readings
from workbench.explore.compared import Compared, seen
from workbench.explore.panel import Panel
from workbench.explore.subject import Subject
from workbench.plots.view import View
from workbench.readings.ablation import ablated_cells

FACTORS = (0.0, 0.5, 1.25, 1.5)  # at 1 nothing is changed
SAVED = "diagnostics.diagnose(evaluation.open_run({!r}), only=['ablation'])['ablation']"
TRIAL = "{} = diagnostics.trial(evaluation.open_run({!r}))"


def intervention(run: str, other: str = "") -> Panel:
    """Look at what every part and head costs, then change one and see which tokens pay.

    Parameters
    ----------
    run : str
        Name of a run.
    other : str, optional
        A second run; its costs are subtracted, token by token where the tokens are the same.

    Returns
    -------
    Panel
        Controls: `show` of two runs; `target`, any name of `diagnostics.targets` (clicking a cell
        sets it), and `against`, another whose costs are subtracted; `how` it is changed, and by
        which `factor` it is scaled. The model is loaded when a target is chosen.
    """
    runs = Compared(run, other)
    subjects = {name: Subject(name) for name in runs.names}
    controls = {"show": runs.control, **_controls(subjects[run].group("ablation"))}

    @cache
    def trial(name: str) -> Any:
        from workbench import diagnostics

        found = subjects[name].trial
        names = tuple(diagnostics.targets(found.model))
        controls["target"].options = controls["against"].options = names
        return found

    def overview(show: str, target: str) -> View:
        told = partial(readings.ablation, chosen=target)

        def one(name: str) -> View:
            saved = subjects[name].group("ablation")
            return seen("ablation", saved, SAVED.format(name), said=told(saved), chosen=target)

        return runs.view(show, one, reading=told)

    @cache
    def changed(plot: str, show: str, target: str, against: str, *hows: str | float) -> View | None:
        if not target:
            return None
        names = sides = runs.shown(show)
        first, *rest = map(trial, names)
        data = first.cost(target, hows, against=against, other=rest[0] if rest else None)
        if against:
            places = zip((target, against), names * 2, strict=False)
            sides = [f"{what} of {of}" for what, of in places]
        lead = f"{' less '.join(sides)}: " if len(sides) > 1 else ""
        more = f", against={against!r}" * bool(against) + ", other=b" * bool(rest)
        code = [TRIAL.format(*pair) for pair in zip("ab", names, strict=False)]
        code.append(f"a.cost({target!r}, {list(hows)}{more})")
        return seen(plot, data, "\n".join(code), said=lead + getattr(readings, plot)(data))

    def curve(show: str, target: str, against: str) -> View | None:
        return changed("intervention_curve", show, target, against, *FACTORS)

    def classes(show: str, target: str, against: str, how: str, factor: float) -> View | None:
        return changed("intervention", show, target, against, factor if how == "scale" else how)

    title = f"What the parts of {run} are worth" + (f", against {other}" if other else "")
    return Panel(title, views=[overview, curve, classes], controls=controls)


def _controls(ds: xr.Dataset) -> dict[str, Any]:
    """Make the controls; `ds` names the cells that can be chosen before the model is loaded."""
    parts = ablated_cells(ds).part.values
    cells = [f"visit.{visit}.{part}" for visit in ds.visit.values for part in parts]
    hints = {"target": "click a cell, or name a site", "against": "nothing; or name another"}
    return {
        **{
            name: widgets.Combobox(options=cells, placeholder=hint, continuous_update=False)
            for name, hint in hints.items()
        },
        "how": widgets.ToggleButtons(options=["mean", "zero", "scale"]),
        "factor": widgets.FloatSlider(value=0.5, max=1.5, step=0.05, continuous_update=False),
    }
