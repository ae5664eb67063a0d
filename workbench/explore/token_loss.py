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

    subjects = {name: Subject(name) for name in (run, other) if name}

    @cache
    def opened(show: str) -> tuple[xr.Dataset, Any, str]:
        """Return the tokens shown, their text, and the calls that give them."""
        name = run if show == BOTH else show
        sample, call = subjects[name].sample, "annotated(samples[0].table, samples[0].data)"
        names = [*subjects] if show == BOTH else [name]
        made = [f"diagnostics.sample(evaluation.open_run({each!r}))" for each in names]
        one = show == BOTH and sample.tokenizer.hash == subjects[other].sample.tokenizer.hash
        if one:
            call, table = "paired(*samples)", diagnostics.paired(sample, subjects[other].sample)
        else:
            table = diagnostics.annotated(sample.table, sample.data)
        return table, sample.data, f"samples = [{', '.join(made)}]\ntable = diagnostics.{call}\n"

    def compared(show: str) -> bool:
        return opened(show)[0].attrs["reference"] == "the other run"

    def view(show: str, plot: str, data: xr.Dataset, call: str, **options: Any) -> View:
        said = getattr(readings, "confusions" if "pair" in data.dims else plot)
        told = said(data, **options) if plot == "calibration" else said(data)
        alone = "pair" in data.dims or plot == "calibration" or not compared(show)
        if show == BOTH and plot != "token_loss" and alone:
            told = f"{run} alone: {told}"
        code = f"{opened(show)[2]}diagnostics.{call}"
        return View(plot=plot, data=data, sentence=told, code=code, options=options)

    @cache
    def classes(show: str) -> tuple[xr.Dataset, str]:
        if show == BOTH:
            seeds = [diagnostics.seed_results(each.folder) for each in subjects.values()]
            samples = [each.sample for each in subjects.values()]
            found = diagnostics.token_difference(*samples, seeds=seeds)
            return found, f"token_difference(*samples, seeds={seeds})"
        saved = subjects[show].group("token_loss")
        whole = saved if "excess" in saved else diagnostics.token_loss(opened(show)[0])
        return whole, "token_loss(table)"

    def overview(show: str, sort: str) -> View:
        return view(show, "token_loss", *classes(show), sort=sort, clicks="token_class")

    def details(show: str, token_class: str, detail: str) -> View:
        (table, data, _), by = opened(show), ["token_class", "decile", "repetition"]
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
        table, data, _ = opened(show)
        rows = diagnostics.worded(table.isel(token=chosen), data)
        return view(show, "text_strip", rows, f"worded(table.isel(token={where}), samples[0].data)")

    def strip(show: str, document: int, place: int) -> View:
        documents = opened(show)[0].document.values
        first = min(int(np.argmax(documents == document)) + place, len(documents) - 1)
        last = first + SHOWN
        return words(show, slice(first, last), f"slice({first}, {last})")

    def alike(show: str, token: int) -> View | None:
        table = opened(show)[0]
        one = table.isel(token=np.flatnonzero(table.offset == token))
        if not one.sizes["token"]:
            return None
        same = np.flatnonzero((table.id == one.id.item()) & (table.top1 == one.top1.item()))
        order = np.argsort(table.offset.values[same] != token, kind="stable")  # it comes first
        chosen = same[order][:ALIKE]
        return words(show, chosen, str(chosen.tolist()))

    shows = [BOTH, run, other] if other else [run]
    first, menu, number = classes(run)[0], widgets.Dropdown, widgets.BoundedIntText
    top = str(first.token_class[int(first.excess.values.argmax())].item())
    documents = np.unique(opened(shows[0])[0].document).tolist()
    hidden = {"display": "" if other else "none"}
    controls = {
        "show": widgets.ToggleButtons(options=shows, layout=hidden),
        "sort": menu(options=["recoverable", "share"], description="sort"),
        "token_class": menu(options=TOKEN_CLASSES, value=top, description="class"),
        "detail": menu(options=DETAILS, description="detail"),
        "document": menu(options=documents, description="document"),
        "place": number(max=10**9, step=SHOWN, description="place"),
        "token": number(max=10**9, description="token"),
    }
    title = f"Loss of {run} by token" + (f", less that of {other}" if other else "")
    return Panel(title, views=[overview, details, strip, alike], controls=controls)
