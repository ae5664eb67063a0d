"""Why does it predict that, and is it the output bias, the head or the trunk that needs mending."""

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import ipywidgets as widgets
import numpy as np
import xarray as xr

from workbench import readings
from workbench.explore.panel import Panel
from workbench.explore.subject import Subject
from workbench.plots.view import View
from workbench.result import difference

BOTH = "difference"
ALL, CONFUSION, TYPED, HANDED = "all", "a confusion", "a typed prompt", "handed over"
HINT = "due => predicted, or prompt => due"
DETAILS = {  # what can be seen below the margins: figure, reading
    "decision": ("components", "what_to_mend"),
    "what if": ("damping", "damping"),
    "components": ("components", "components"),
    "frequency": ("unigram_prior", "unigram_prior"),
    "logit lens": ("logit_lens", "logit_lens"),
}
Choice = tuple[str, str]  # chosen, words


def logit_prior(run: str, other: str = "", *, tokens: Any = None) -> Panel:
    """Split the margins of a chosen set of predictions, decide what to mend, and test it.

    Parameters
    ----------
    run : str
        Name of a run.
    other : str, optional
        A second run; differences of margins are paired, on the records that both have.
    tokens : Dataset with `offset`, or array of int, optional
        Targets that another panel hands over, by their offset in the validation split.

    Returns
    -------
    Panel
        Controls: `show` of two runs; `chosen`, the predictions: all of the diagnosis, the failed
        ones of a profile or class (clicks on a row set it), a confusion, or a typed prompt;
        `words`, ``due => predicted`` tokens of the confusion (the commonest, if empty) or
        ``prompt => due``; `detail`, seen below; `prior_kept` and `bias_kept`, the sliders of its
        *what if*. The table is the detail's.
    """
    subjects = {name: _Predictions(name, tokens) for name in (run, other) if name}
    saved = subjects[run].group("logit_prior")
    failed = np.unique(saved.profile.values[~saved.correct.values.astype(bool)]).tolist()
    chosen = [ALL, *failed, CONFUSION, TYPED, *([] if tokens is None else [HANDED])]
    shown = [BOTH, run, other] if other else [run]
    kept: dict[str, Any] = {"min": 0.0, "max": 1.0, "step": 0.05, "value": 1.0}
    controls = {
        "show": widgets.ToggleButtons(options=shown, layout={"display": "" if other else "none"}),
        "chosen": widgets.Dropdown(options=chosen, description="predictions"),
        "words": widgets.Text(description="words", placeholder=HINT, continuous_update=False),
        "detail": widgets.ToggleButtons(options=list(DETAILS)),
        "prior_kept": widgets.FloatSlider(description="prior kept", **kept),
        "bias_kept": widgets.FloatSlider(description="bias kept", **kept),
    }

    def margins(show: str, chosen: str, words: str) -> View:
        seen = [each for name, each in subjects.items() if show in (BOTH, name)]
        found = [each.explained((chosen, words)) for each in seen]
        code = seen[0].code((chosen, words))
        if show != BOTH:
            said = readings.logit_prior(found[0])
            return View(plot="logit_prior", data=found[0], sentence=said, code=code)
        parts = difference(*found)[["bias", "prior", "context"]].to_dataarray("component")
        data = _library().mean_parts(parts).assign_attrs(compared=1)
        return View(plot="components", data=data, sentence=readings.components(data), code=code)

    def details(
        show: str, detail: str, chosen: str, words: str, prior_kept: float, bias_kept: float
    ) -> View:
        each, (plot, reading) = subjects[run if show == BOTH else show], DETAILS[detail]
        data, code = each.detail(detail, (chosen, words), (prior_kept, bias_kept))
        said = f"{each.name}: {getattr(readings, reading)(data)}"
        return View(plot=plot, data=data, sentence=said, code=code)

    title = f"Why does {' or '.join(subjects)} predict that?"
    return Panel(title, views=[margins, details], controls=controls)


class _Predictions(Subject):
    """A run, its chosen predictions and what is cached of them."""

    def __init__(self, name: str, tokens: Any) -> None:
        super().__init__(name)
        self.offsets = tokens["offset"].values if isinstance(tokens, xr.Dataset) else tokens
        self.states: Callable[[Choice], Any] = cache(self._states)
        self.explained: Callable[[Choice], xr.Dataset] = cache(self._explained)
        self.components: Callable[[Choice], xr.Dataset] = cache(self._components)

    def asked(self, choice: Choice) -> dict[str, Any]:
        """Turn the controls into arguments of `diagnostics.chosen_states`."""
        # Figures mark the space that begins a token: what is copied from them is meant.
        words = choice[1].replace("\u2423", "\u00a0").partition("=>")
        first, _, second = (part.strip(" ").replace("\u00a0", " ") for part in words)
        known: dict[str, dict[str, Any]] = {
            ALL: {},
            CONFUSION: {"confusion": (first, second) if second else ("", "")},
            TYPED: {"prompt": first or "The", "target": second},
            HANDED: {"offsets": self.offsets},
        }
        return known.get(choice[0], {"profile": choice[0]})

    def code(self, choice: Choice) -> str:
        """Write the calls that choose and explain."""
        told = "".join(f", {name}={value!r}" for name, value in self.asked(choice).items())
        return (
            f"opened = evaluation.open_run({self.name!r})\nsample = diagnostics.sample(opened)\n"
            f"states = diagnostics.chosen_states(sample{told})\n"
            "explained = diagnostics.explain_chosen(sample, states)"
        )

    def _states(self, choice: Choice) -> Any:
        """Run the model where the chosen predictions are made."""
        return _library().chosen_states(self.sample, **self.asked(choice))

    def _explained(self, choice: Choice) -> xr.Dataset:
        """Split the chosen margins, or take them from the diagnosis."""
        if choice[0] in (CONFUSION, TYPED, HANDED):
            found: xr.Dataset = _library().explain_chosen(self.sample, self.states(choice))
            return found
        group = self.group("logit_prior")
        failed = (group.profile.values == choice[0]) & ~group.correct.values.astype(bool)
        return group if choice[0] == ALL else group.isel(record=np.flatnonzero(failed))

    def _components(self, choice: Choice) -> xr.Dataset:
        """Split the chosen margins by what every part of the network wrote."""
        states, explained = self.states(choice), self.explained(choice)
        found: xr.Dataset = _library().components(self.sample.model, states, explained)
        return found

    def _damped(self, kept: tuple[float, float]) -> xr.Dataset:
        """Join the saved curves and one more setting."""
        curves, sample = self.group("damping"), self.sample
        mu, hidden = sample.reference[0], self._hidden
        options = {"mu": mu, "hidden": hidden, "settings": [kept]}
        one = _library().damping(sample.model, sample.rows, **options)
        joined = xr.concat([curves, one], "setting", combine_attrs="override")
        return joined.assign_attrs(setting=curves.sizes["setting"])

    @cached_property
    def _hidden(self) -> Any:
        """Hidden states of the cached text."""
        return _library().final_states(self.sample.model, self.sample.rows)

    def detail(
        self, detail: str, choice: Choice, kept: tuple[float, float]
    ) -> tuple[xr.Dataset, str]:
        """Return what is seen below the margins, and the call that gives it."""
        if detail == "decision":
            data = _library().what_to_mend(self.explained(choice), self.group("damping"))
            curves = "diagnostics.diagnose(opened, only=['damping'])['damping']"
            return data, f"diagnostics.what_to_mend(explained, {curves})"
        if detail == "components":
            code = "diagnostics.components(sample.model, states, explained)"
            return self.components(choice), code
        if detail == "what if" and kept != (1, 1):
            return self._damped(kept), (
                "hidden = diagnostics.final_states(sample.model, sample.rows)\n"
                "diagnostics.damping(sample.model, sample.rows, mu=sample.reference[0], "
                f"hidden=hidden, settings=[{kept}])"
            )
        noun = DETAILS[detail][0]
        return self.group(noun), f"diagnostics.diagnose(opened, only=[{noun!r}])[{noun!r}]"


def _library() -> Any:
    """Import the diagnostics, which bring torch, when something has to be measured."""
    from workbench import diagnostics

    return diagnostics
