"""Where are the recoverable bits, and did a change pay? From classes down to the text."""

from functools import cache
from typing import Any

import ipywidgets as widgets
import numpy as np
import xarray as xr

from workbench import readings
from workbench.explore.panel import Panel
from workbench.explore.subject import Subject
from workbench.plots.view import View
from workbench.text import TOKEN_CLASSES

BOTH = "difference"
SHOWN = 14 * 16  # tokens of text at once
ALIKE = 14 * 8  # tokens shown that were mistaken alike
DETAILS = ("confusions", "deciles", "calibration", "position_loss")


def token_loss(run: str, other: str = "") -> Panel:
    """Go from classes to their details, to the text, and to all tokens mistaken alike.

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
        into the validation ids, 0 for none. The table holds the tokens of the text shown, or,
        once a token is chosen, all tokens of the same target and first prediction, with `offset`.
    """
    from workbench import diagnostics

    scored = _Scored({name: Subject(name) for name in (run, other) if name})
    view = scored.view

    def overview(show: str, sort: str) -> View:
        return view(show, "token_loss", *scored.classes(show), sort=sort, clicks="token_class")

    def details(show: str, token_class: str, detail: str) -> View:
        (table, data, _), by = scored.opened(show), ["token_class", "decile", "repetition"]
        if detail == "deciles":
            cells = diagnostics.loss_cells(table, by).sel(token_class=token_class)
            return view(show, "parts", cells, f"loss_cells(table, {by})")
        if detail == "confusions":
            found = diagnostics.confusions(table, data.tokenizer, token_class=token_class)
            call = f"confusions(table, samples[0].tokenizer, token_class={token_class!r})"
            return view(show, "parts", found, call, name="contribution")
        options = {"chosen": token_class} if detail == "calibration" else {}
        found = getattr(diagnostics, detail)(table)
        return view(show, detail, found, f"{detail}(table)", **options)

    def words(show: str, chosen: Any, where: str) -> View:
        table, data, _ = scored.opened(show)
        rows = diagnostics.worded(table.isel(token=chosen), data)
        return view(show, "text_strip", rows, f"worded(table.isel(token={where}), samples[0].data)")

    def strip(show: str, document: int, place: int) -> View:
        documents = scored.opened(show)[0].document.values
        first = min(int(np.argmax(documents == document)) + place, len(documents) - 1)
        last = first + SHOWN
        return words(show, slice(first, last), f"slice({first}, {last})")

    def alike(show: str, token: int) -> View | None:
        table = scored.opened(show)[0]
        one = table.isel(token=np.flatnonzero(table.offset == token))
        if not one.sizes["token"]:
            return None
        same = np.flatnonzero((table.id == one.id.item()) & (table.top1 == one.top1.item()))
        order = np.argsort(table.offset.values[same] != token, kind="stable")  # it comes first
        chosen = same[order][:ALIKE]
        return words(show, chosen, str(chosen.tolist()))

    controls = _controls(scored, [BOTH, run, other] if other else [run])
    title = f"Loss of {run} by token" + (f", less that of {other}" if other else "")
    return Panel(title, views=[overview, details, strip, alike], controls=controls)


def _controls(scored: "_Scored", shows: list[str]) -> dict[str, Any]:
    """Make the menus, beginning with the class that has most of the excess."""
    first, menu, number = (
        scored.classes(shows[min(1, len(shows) - 1)])[0],
        widgets.Dropdown,
        widgets.BoundedIntText,
    )
    top = str(first.token_class[int(first.excess.values.argmax())].item())
    documents = np.unique(scored.opened(shows[0])[0].document).tolist()
    hidden = {"display": "" if len(shows) > 1 else "none"}
    return {
        "show": widgets.ToggleButtons(options=shows, layout=hidden),
        "sort": menu(options=["recoverable", "share"], description="sort"),
        "token_class": menu(options=TOKEN_CLASSES, value=top, description="class"),
        "detail": menu(options=DETAILS, description="detail"),
        "document": menu(options=documents, description="document"),
        "place": number(max=10**9, step=SHOWN, description="place"),
        "token": number(max=10**9, description="token"),
    }


class _Scored:
    """One run or two, with their scored tokens; what was measured is kept."""

    def __init__(self, subjects: dict[str, Subject]) -> None:
        self.subjects = subjects
        self.opened, self.classes = cache(self._opened), cache(self._classes)

    def view(self, show: str, plot: str, data: xr.Dataset, call: str, **options: Any) -> View:
        """Show what a diagnostic made of the tokens."""
        table, _, made = self.opened(show)
        said = getattr(readings, "confusions" if "pair" in data.dims else plot)
        told = said(data, **options) if plot == "calibration" else said(data)
        alone = table.attrs["reference"] != "the other run"
        alone = alone or "pair" in data.dims or plot == "calibration"
        if show == BOTH and plot != "token_loss" and alone:
            told = f"{next(iter(self.subjects))} alone: {told}"
        code = f"{made}diagnostics.{call}"
        return View(plot=plot, data=data, sentence=told, code=code, options=options)

    def _opened(self, show: str) -> tuple[xr.Dataset, Any, str]:
        """Return the tokens shown, their text, and the calls that give them."""
        from workbench import diagnostics

        names = [*self.subjects] if show == BOTH else [show]
        samples = [self.subjects[name].sample for name in names]
        made = [f"diagnostics.sample(evaluation.open_run({each!r}))" for each in names]
        if len({each.tokenizer.hash for each in samples}) < len(samples):
            call, table = "paired(*samples)", diagnostics.paired(*samples)
        else:
            call = "annotated(samples[0].table, samples[0].data)"
            table = diagnostics.annotated(samples[0].table, samples[0].data)
        return (
            table,
            samples[0].data,
            f"samples = [{', '.join(made)}]\ntable = diagnostics.{call}\n",
        )

    def _classes(self, show: str) -> tuple[xr.Dataset, str]:
        """Return the classes of a run, or the differences of two, and the call that gives them."""
        from workbench import diagnostics

        if show != BOTH:
            saved = self.subjects[show].group("token_loss")
            whole = saved if "excess" in saved else diagnostics.token_loss(self.opened(show)[0])
            return whole, "token_loss(table)"
        seeds = [diagnostics.seed_results(each.folder) for each in self.subjects.values()]
        samples = [each.sample for each in self.subjects.values()]
        found = diagnostics.token_difference(*samples, seeds=seeds)
        return found, f"token_difference(*samples, seeds={seeds})"
