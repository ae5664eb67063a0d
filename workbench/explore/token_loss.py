"""Where are the recoverable bits, and did a change pay? From classes down to the text."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import ipywidgets as widgets
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench import readings
from workbench.explore.compared import BOTH, Compared, seen
from workbench.explore.logit_prior import TOKEN, Choice, Predictions
from workbench.explore.panel import Panel
from workbench.plots.view import View
from workbench.text import TOKEN_CLASSES

SHOWN = 14 * 16  # tokens of text at once
ALIKE = 14 * 8  # tokens shown that were mistaken alike
PARTS = 12  # of the network that are drawn of one prediction
CLICK = " Click a token to see why it was predicted."
DETAILS = ("confusions", "deciles", "calibration", "position_loss")


def token_loss(run: str, other: str = "") -> Panel:
    """Go from classes to their details, to the text, and to why one token was predicted.

    Parameters
    ----------
    run : str
        Name of a run.
    other : str, optional
        A second run to subtract, on the same corpus.

    Returns
    -------
    Panel
        Clicks on a class set `token_class`, on a pair or a token of the text `token`, an offset
        into the validation ids, 0 for none. Once a token is chosen its margin is split. The table
        holds the tokens of the text shown, or, once a token is chosen, all tokens of the same
        target and first prediction, with `offset`: `logit_prior` takes it as its tokens.
    """
    from workbench import diagnostics

    scored = _Scored(Compared(run, other))
    view, runs = scored.view, scored.runs

    def overview(show: str, sort: str) -> View:
        return view(show, "token_loss", *scored.classes(show), sort=sort, clicks="token_class")

    def details(show: str, token_class: str, detail: str) -> View:
        (table, data, _), by = scored.opened(show), ["token_class", "decile", "repetition"]
        if detail in ("calibration", "position_loss"):
            asked = {"chosen": token_class} if detail == "calibration" else {}
            return runs.view(show, lambda name: scored.curve(show, name, detail, **asked))
        if detail == "deciles":
            found = diagnostics.loss_cells(table, by).sel(token_class=token_class)
            return view(show, "parts", found, f"loss_cells(table, {by})")
        call, less = f"confusions(table, samples[0].tokenizer, token_class={token_class!r}", None
        if show == BOTH and scored.paired:
            less = scored.opened(show, runs.names[1])[0]
            call += ", against=diagnostics.paired(*samples[::-1])"
        found = diagnostics.confusions(table, data.tokenizer, token_class=token_class, against=less)
        return view(show, "parts", found, f"{call})", name="contribution")

    def words(show: str, chosen: Any, where: str) -> View:
        table, data, _ = scored.opened(show)
        rows = diagnostics.worded(table.isel(token=chosen), data)
        return view(show, "text_strip", rows, f"worded(table.isel(token={where}), samples[0].data)")

    def strip(show: str, document: int, place: int, token: int) -> View:
        documents = scored.opened(show)[0].document.values
        first = min(int(np.argmax(documents == document)) + place, len(documents) - 1)
        last = first + SHOWN
        found = words(show, slice(first, last), f"slice({first}, {last})")
        return found if token else replace(found, sentence=found.sentence + CLICK)

    def why(show: str, token: int) -> View | None:
        return scored.of_token(show, token, lambda each, choice: each.why(choice))

    def inside(show: str, token: int) -> View | None:
        found = scored.of_token(
            show, token, lambda each, choice: each.detail("components", choice, (1, 1))
        )
        return found and replace(found, options={"most": PARTS})

    def alike(show: str, token: int) -> View | None:
        table, at = scored.opened(show)[0], scored.rows(show, token)
        if not at.size:
            return None
        one = table.isel(token=at[0])
        same = np.flatnonzero((table.id == one.id.item()) & (table.top1 == one.top1.item()))
        order = np.argsort(table.offset.values[same] != token, kind="stable")  # it comes first
        chosen = same[order][:ALIKE]
        return words(show, chosen, str(chosen.tolist()))

    title = f"Loss of {run} by token" + (f", less that of {other}" if other else "")
    views: list[Any] = [overview, details, strip, why, inside, alike]
    return Panel(title, views=views, controls=_controls(scored))


def _controls(scored: "_Scored") -> dict[str, Any]:
    """Make the menus, beginning with the class that has most of the excess."""
    menu, number, names = widgets.Dropdown, widgets.BoundedIntText, scored.runs.names
    first = scored.classes(names[0])[0]
    top = str(first.token_class[int(first.excess.values.argmax())].item())
    documents = np.unique(scored.opened(scored.runs.control.value)[0].document).tolist()
    return {
        "show": scored.runs.control,
        "sort": menu(options=["recoverable", "share"], description="sort"),
        "token_class": menu(options=TOKEN_CLASSES, value=top, description="class"),
        "detail": menu(options=DETAILS, description="detail"),
        "document": menu(options=documents, description="document"),
        "place": number(max=10**9, step=SHOWN, description="place"),
        "token": number(max=10**9, description="token"),
    }


class _Scored:
    """One run or two, with their scored tokens; what was measured is kept."""

    def __init__(self, runs: Compared) -> None:
        self.runs = runs
        self.subjects = {name: Predictions(name) for name in runs.names}
        self._opened: Callable[..., tuple[xr.Dataset, Any, str]] = cache(self._tokens)
        self.classes = cache(self._classes)

    def view(self, show: str, plot: str, data: xr.Dataset, call: str, **options: Any) -> View:
        """Show what a diagnostic made of the tokens, of one run or of two less each other."""
        if show == BOTH and self.paired:
            data = data.assign_attrs(compared=1)
        told = getattr(readings, "confusions" if "pair" in data.dims else plot)(data)
        if show == BOTH and plot != "token_loss":
            told = f"{' less '.join(self.runs.names) if self.paired else self._alone}: {told}"
        code = f"{self.opened(show)[2]}diagnostics.{call}"
        return seen(plot, data, code, said=told, **options)

    def curve(self, show: str, name: str, noun: str, **options: Any) -> View:
        """Show a curve of the tokens of one run."""
        from workbench import diagnostics

        table, _, made = self.opened(show, name)
        data = getattr(diagnostics, noun)(table)
        said, code = getattr(readings, noun)(data, **options), f"{made}diagnostics.{noun}(table)"
        return seen(noun, data, code, said=said, **options)

    @cached_property
    def paired(self) -> bool:
        """Whether the runs score the same tokens."""
        return len({each.sample.tokenizer.hash for each in self.subjects.values()}) == 1

    @property
    def _alone(self) -> str:
        """Say whose tokens are shown where those of the runs differ."""
        return f"{self.runs.names[0]} alone, whose tokens are others"

    def rows(self, show: str, token: int) -> NDArray[np.int64]:
        """Return the row of a token, if it is scored."""
        return np.flatnonzero(self.opened(show)[0].offset.values == token)

    def of_token(
        self, show: str, token: int, draw: Callable[[Predictions, Choice], View]
    ) -> View | None:
        """Show something about one prediction of each run, once a token is chosen."""
        if not self.rows(show, token).size:
            return None
        choice = (TOKEN, str(token))
        if show == BOTH and not self.paired:  # an offset is of one tokenizer
            view = draw(self.subjects[self.runs.names[0]], choice)
            return replace(view, sentence=f"{self._alone}: {view.sentence}")
        return self.runs.view(show, lambda name: draw(self.subjects[name], choice))

    def opened(self, show: str, name: str = "") -> tuple[xr.Dataset, Any, str]:
        """Return the tokens of a run, against those of the other where two are compared."""
        name = name or self.runs.shown(show)[0]
        both = self.runs.names if name == self.runs.names[0] else self.runs.names[::-1]
        return self._opened(*both) if show == BOTH and self.paired else self._opened(name)

    def _tokens(self, *names: str) -> tuple[xr.Dataset, Any, str]:
        """Return the tokens of the first, their text, and the calls that give them."""
        from workbench import diagnostics

        samples = [self.subjects[name].sample for name in names]
        made = [f"diagnostics.sample(evaluation.open_run({each!r}))" for each in names]
        if len(names) > 1:
            call = f"paired(*samples, name={names[1]!r})"
            table = diagnostics.paired(*samples, name=names[1])
        else:
            call = "annotated(samples[0].table, samples[0].data)"
            table = diagnostics.annotated(samples[0].table, samples[0].data)
        code = f"samples = [{', '.join(made)}]\ntable = diagnostics.{call}\n"
        return table, samples[0].data, code

    def _classes(self, show: str) -> tuple[xr.Dataset, str]:
        """Return the classes of a run, or the differences of two, and the call that gives them."""
        from workbench import diagnostics

        if show != BOTH:
            saved = self.subjects[show].group("token_loss")
            whole = saved if "excess" in saved else diagnostics.token_loss(self.opened(show)[0])
            return whole, "token_loss(table)"
        names = self.runs.names[0], self.runs.names[1]
        seeds = [diagnostics.seed_results(self.subjects[name].folder) for name in names]
        samples = [self.subjects[name].sample for name in names]
        found = diagnostics.token_difference(*samples, seeds=seeds, names=names)
        return found, f"token_difference(*samples, seeds={seeds}, names={names})"
