"""Keep, clamp or remove the alpha of a visit, or put the identity there."""

import json
import shlex
from collections.abc import Callable
from functools import cache, partial
from itertools import product
from typing import Any

import ipywidgets as widgets
import numpy as np
import xarray as xr
import yaml

from workbench import readings
from workbench.explore.compared import Compared, seen
from workbench.explore.panel import Panel
from workbench.explore.subject import Subject
from workbench.folder import PROJECT, InputError, RunFolder, replacing
from workbench.plots.view import View
from workbench.result import difference

NAME = "value_residual"
TRAIN = PROJECT / "notebooks" / "experiments" / "train.ipynb"


def value_residual(run: str, other: str = "") -> Panel:
    """Follow the mix of every visit, drag the alpha of one, and weigh every other mixing scalar.

    Parameters
    ----------
    run : str
        Name of a run.
    other : str, optional
        A second run, which is subtracted.

    Returns
    -------
    Panel
        Controls: `show` of two runs; `visit`, set by clicks, whose loss curve is measured when
        chosen; `mix`, one more to try there. The button writes the retrained comparison.
    """
    runs = Compared(run, other)
    subjects = {name: Subject(name) for name in runs.names}
    saved = {name: _saved(each) for name, each in subjects.items()}

    def overview(group: str) -> Callable[[str], View]:
        def one(name: str) -> View:
            return seen(group, saved[name][group], f"explore.Subject({name!r}).group({group!r})")

        told = partial(readings.reading, group)
        return lambda show: runs.view(show, one, reading=told, subtract=_difference)

    @cache
    def curve(name: str, visit: int, mix: float | None = None) -> xr.Dataset:
        from workbench import diagnostics

        trial = subjects[name].trial
        if mix is None:
            return diagnostics.alpha_curve(trial, visit)
        return diagnostics.mix_cost(trial, visit=visit, mix=mix)

    def loss(show: str, visit: int, mix: float) -> View | None:
        def one(name: str) -> View:
            asked, mean = curve(name, visit, mix), saved[name][NAME].sel(visit=visit, drop=True)
            mean = mean[["mean_cost", "mean_cost_standard_error"]]
            data = curve(name, visit).assign(mean).assign(asked).assign_attrs(asked.attrs)
            code = f"trial = diagnostics.trial(explore.Subject({name!r}).sample)\n"
            code += f"diagnostics.alpha_curve(trial, {visit})"
            return seen("alpha_curve", data, code)

        return runs.view(show, one) if visit else None

    both = [group for group in (NAME, "mixing") if all(group in each for each in saved.values())]
    views: list[Any] = [overview(group) for group in both]
    title = f"Value residual of {' and '.join(runs.names)}"
    if NAME not in both:  # a network without one: its other scalars are all there is
        return Panel(title, views=views, controls={"show": runs.control})
    controls = {"show": runs.control, **_controls(saved[run][NAME])}
    actions = {"write retrained comparison": lambda: f"written: {_plan(subjects[run].folder)}"}
    return Panel(title, views=[*views, loss], controls=controls, actions=actions)


def _controls(ds: xr.Dataset) -> dict[str, Any]:
    """Make the menus, and a slider from nothing to twice the largest mix."""
    ends = 2 * ds.alpha_effective.isel(step=-1).values
    gated = ds.attrs["gate"] == "sigmoid"
    low, high = (0, 1) if gated else (np.nanmin([0, *ends]), np.nanmax([1, *ends]))
    judged = zip(ds.visit.values.tolist(), ds.decision.values.tolist(), strict=True)
    start = {"value": ds.attrs["init_effective"], "min": low, "max": high, "step": 0.01}
    return {
        "visit": widgets.Dropdown(
            options=[("none", 0), *((f"{v}: {told}", v) for v, told in judged if told)],
            description="visit",
        ),
        "mix": widgets.FloatSlider(**start, description="mix", continuous_update=False),
    }


def _saved(subject: Subject) -> dict[str, xr.Dataset]:
    """Read the groups that apply to a run; one measured before there were decisions anew.

    Raises
    ------
    InputError
        If neither does: the network learns no mixing scalar.
    """
    found, refused = {}, None
    for name in (NAME, "mixing"):
        try:
            found[name] = subject.group(name)
        except InputError as error:
            refused = error
    if not found:
        assert refused is not None
        raise refused
    if NAME in found and "decision" not in found[NAME]:
        from workbench import diagnostics

        found[NAME] = diagnostics.value_residual(subject.sample.checkpoints, subject.sample.rows)
    return found


def _difference(this: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Subtract step by step, or the last steps where the runs kept others."""
    if this.step.equals(other.step):
        return difference(this, other)
    return difference(this.isel(step=-1, drop=True), other.isel(step=-1, drop=True))


def _plan(folder: RunFolder) -> str:
    """Write the experiment: train with and without the value residual, two seeds each."""
    from workbench.execution import parameters_of  # brings papermill

    record = folder.record()
    data, first, trained = record["data"], record["seed"], record["training"]
    same = {key: trained[key] for key in parameters_of(TRAIN) if key in trained}
    same |= {"corpus": data["source"], "text_field": data["text_field"], "preset": "baseline"}
    same["tokenizer"] = str(folder.path / "tokenizer")
    models = {"with": record["model"], "without": record["model"] | {NAME: None}}
    commands = []
    for (side, model), seed in product(models.items(), (first, first + 1)):
        line = ["python", "-m", "workbench", "train", "--name", f"{folder.name}-{side}-{seed}"]
        for key, value in {**same, "model": model, "seed": seed}.items():
            line += ["-p", key, value if isinstance(value, str) else json.dumps(value)]
        commands.append(shlex.join(line))
    plan = {
        "question": "what does training without the value residual lose",
        "compare": "bits_per_byte seed by seed; ablation after training overstates the need",
        "not supported by the train notebook": "an alpha held fixed at one visit",
        "parameters": {**same, "model": models, "seed": [first, first + 1]},
        "commands": commands,
    }
    path = folder.path / "experiments" / f"{NAME}.yaml"
    with replacing(path) as scratch:
        scratch.write_text(yaml.safe_dump(plan, sort_keys=False, width=10**6), encoding="utf-8")
    return str(path)
