"""Why does it predict that, and is it the output bias, the head or the trunk that needs mending."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import ipywidgets as widgets
import numpy as np
import xarray as xr

from workbench import readings
from workbench.explore.compared import Compared, seen
from workbench.explore.panel import Panel
from workbench.explore.subject import Subject
from workbench.plots.view import View
from workbench.result import difference

ALL, CONFUSION, TYPED, HANDED = "all", "a confusion", "a typed prompt", "handed over"
TOKEN = "a token"  # its words are an offset into the validation split
PARTS = ["bias", "prior", "context"]
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
    runs = Compared(run, other)
    subjects = {name: Predictions(name, tokens) for name in runs.names}
    saved = subjects[run].group("logit_prior")
    failed = np.unique(saved.profile.values[~saved.correct.values.astype(bool)]).tolist()
    chosen = [*([] if tokens is None else [HANDED]), ALL, *failed, CONFUSION, TYPED]
    kept: dict[str, Any] = {"min": 0.0, "max": 1.0, "step": 0.05, "value": 1.0}
    controls = {
        "show": runs.control,
        "chosen": widgets.Dropdown(options=chosen, description="predictions"),
        "words": widgets.Text(description="words", placeholder=HINT, continuous_update=False),
        "detail": widgets.ToggleButtons(options=list(DETAILS)),
        "prior_kept": widgets.FloatSlider(description="prior kept", **kept),
        "bias_kept": widgets.FloatSlider(description="bias kept", **kept),
    }

    def margins(show: str, chosen: str, words: str) -> View:
        return compared_margins(runs, show, lambda name: subjects[name].margins((chosen, words)))

    def details(
        show: str, detail: str, chosen: str, words: str, prior_kept: float, bias_kept: float
    ) -> View:
        choice, kept = (chosen, words), (prior_kept, bias_kept)
        return runs.view(show, lambda name: subjects[name].detail(detail, choice, kept))

    title = f"Why does {' or '.join(runs.names)} predict that?"
    return Panel(title, views=[margins, details], controls=controls)


def compared_margins(runs: Compared, show: str, draw: Callable[[str], View]) -> View:
    """Show the margins of one run, or their paired difference on the same records."""
    view = runs.view(show, draw, reading=readings.components, subtract=_subtract)
    return replace(view, plot="components") if "compared" in view.data.attrs else view


def _subtract(this: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Average the differences of the parts of margins, which are paired by record."""
    parts = difference(this, other)[PARTS].to_dataarray("component")
    found: xr.Dataset = _library().mean_parts(parts)
    return found.assign_attrs(compared=1)


class Predictions(Subject):
    """A run, its chosen predictions and what is cached of them."""

    def __init__(self, name: str, tokens: Any = None) -> None:
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
            TOKEN: {"offsets": [int(choice[1])]} if choice[0] == TOKEN else {},
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
        if choice[0] in (CONFUSION, TYPED, HANDED, TOKEN):
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

    def margins(self, choice: Choice) -> View:
        """Show the chosen margins in parts."""
        return seen("logit_prior", self.explained(choice), f"{self.code(choice)}\nexplained")

    def why(self, choice: Choice) -> View:
        """Show what made one token win."""
        explained = self.explained(choice)
        means = _library().mean_parts(explained[PARTS].to_dataarray("component"))
        code = f"{self.code(choice)}\ndiagnostics.mean_parts(explained[{PARTS}].to_dataarray("
        code += "'component'))"
        return seen("components", means, code, said=readings.why(explained))

    def detail(self, detail: str, choice: Choice, kept: tuple[float, float]) -> View:
        """Show what is seen below the margins."""
        (plot, reading), code = DETAILS[detail], self.code(choice)
        if detail == "decision":
            data = _library().what_to_mend(self.explained(choice), self.group("damping"))
            curves = "diagnostics.diagnose(opened, only=['damping'])['damping']"
            code += f"\ndiagnostics.what_to_mend(explained, {curves})"
        elif detail == "components":
            data = self.components(choice)
            code += "\ndiagnostics.components(sample.model, states, explained)"
        elif detail == "what if" and kept != (1, 1):
            data = self._damped(kept)
            code += (
                "\nhidden = diagnostics.final_states(sample.model, sample.rows)\n"
                "diagnostics.damping(sample.model, sample.rows, mu=sample.reference[0], "
                f"hidden=hidden, settings=[{kept}])"
            )
        else:
            data = self.group(plot)
            code += f"\ndiagnostics.diagnose(opened, only=[{plot!r}])[{plot!r}]"
        return seen(plot, data, code, said=readings.reading(reading, data))


def _library() -> Any:
    """Import the diagnostics, which bring torch, when something has to be measured."""
    from workbench import diagnostics

    return diagnostics
