"""What each part is worth, and which tokens pay when one is changed."""

from functools import cache
from typing import Any

import ipywidgets as widgets
import xarray as xr

from workbench import readings
from workbench.explore.panel import Panel
from workbench.explore.subject import Subject
from workbench.plots.view import View
from workbench.readings.ablation import ablated_cells
from workbench.result import difference

BOTH = "difference"
FACTORS = (0.0, 0.5, 1.25, 1.5)  # at 1 nothing is changed
SAVED = "{} = diagnostics.diagnose(evaluation.open_run({!r}), only=['ablation'])['ablation']"
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
    subjects = {name: Subject(name) for name in (run, other) if name}
    saved = {name: each.group("ablation") for name, each in subjects.items()}
    saved = ({BOTH: difference(*saved.values())} if other else {}) | saved
    controls = _controls(saved[run], list(saved))
    lead = dict.fromkeys(saved, "") | {BOTH: f"{run} less {other}: "}

    @cache
    def trial(name: str) -> Any:
        from workbench import diagnostics

        sample = subjects[name].sample
        names = tuple(diagnostics.targets(sample.model))
        controls["target"].options = controls["against"].options = names
        return diagnostics.trial(sample)

    def shown(show: str) -> list[str]:
        return [name for name in subjects if show in (BOTH, name)]

    def overview(show: str, target: str) -> View:
        return View(
            plot="ablation",
            data=saved[show],
            sentence=lead[show] + readings.ablation(saved[show], chosen=target),
            code=_code(SAVED, shown(show), "result.difference(a, b)" if show == BOTH else "a"),
            options={"chosen": target},
        )

    @cache
    def changed(plot: str, show: str, target: str, against: str, *hows: str | float) -> View | None:
        if not target:
            return None
        first, *rest = map(trial, shown(show))
        data = first.cost(target, hows, against=against, other=rest[0] if rest else None)
        more = f", against={against!r}" * bool(against) + ", other=b" * bool(rest)
        told = lead[show]
        if against:
            places = zip((target, against), shown(show) * 2, strict=False)
            told = " less ".join(f"{what} of {of}" for what, of in places) + ": "
        return View(
            plot=plot,
            data=data,
            sentence=told + getattr(readings, plot)(data),
            code=_code(TRIAL, shown(show), f"a.cost({target!r}, {list(hows)}{more})"),
        )

    def curve(show: str, target: str, against: str) -> View | None:
        return changed("intervention_curve", show, target, against, *FACTORS)

    def classes(show: str, target: str, against: str, how: str, factor: float) -> View | None:
        return changed("intervention", show, target, against, factor if how == "scale" else how)

    title = f"What the parts of {run} are worth" + (f", against {other}" if other else "")
    return Panel(title, views=[overview, curve, classes], controls=controls)


def _controls(ds: xr.Dataset, shown: list[str]) -> dict[str, Any]:
    """Make the controls; `ds` names the cells that can be chosen before the model is loaded."""
    parts = ablated_cells(ds).part.values
    several = {"display": "" if len(shown) > 1 else "none"}
    cells = [f"visit.{visit}.{part}" for visit in ds.visit.values for part in parts]
    hints = {"target": "click a cell, or name a site", "against": "nothing; or name another"}
    return {
        "show": widgets.ToggleButtons(options=shown, layout=several),
        **{
            name: widgets.Combobox(options=cells, placeholder=hint, continuous_update=False)
            for name, hint in hints.items()
        },
        "how": widgets.ToggleButtons(options=["mean", "zero", "scale"]),
        "factor": widgets.FloatSlider(value=0.5, max=1.5, step=0.05, continuous_update=False),
    }


def _code(each: str, names: list[str], call: str) -> str:
    """Write the calls: one line a run, and what is done with them."""
    return "\n".join([*(each.format(*pair) for pair in zip("ab", names, strict=False)), call])
