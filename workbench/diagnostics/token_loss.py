"""Where the loss is, and where it could be won back: by class of the target token."""

import numpy as np
import xarray as xr

from workbench.diagnostics.annotated import annotated
from workbench.diagnostics.cells import by_cell, loss_cells, norm
from workbench.diagnostics.sample import Diagnostic
from workbench.diagnostics.sweep import Reducer
from workbench.result import check, variable
from workbench.text import TOKEN_CLASSES


def token_loss(table: xr.Dataset) -> xr.Dataset:
    """Split bits per byte exactly over the classes of the target tokens.

    ``contribution`` sums to the bits per byte of the whole table, and ``excess`` to its distance
    from the reference. Only that total is surely there to be won, by counting alone: the class of a
    target is known afterwards, and an optimal network may lose to counting on one class for what
    it wins on others, where the excess is negative. ``bits_per_byte`` is within the class: its
    bits over its own bytes. A class that was not met has 0 tokens and no loss.

    Parameters
    ----------
    table : Dataset
        Annotated token table, see `annotated`; a bare one gives neither excess nor deciles.
        Against another run's table, the excess is the difference of the two runs.

    Returns
    -------
    Dataset
        `loss_cells` by ``token_class``, with shares of tokens and of loss; by ``decile`` too; and
        apart for tokens new and repeated in the context. ``lead_standard_error`` and
        ``excess_lead_standard_error`` are of the distance to the largest, paired over groups;
        ``total_excess`` is the sum over classes. Attr ``observations``: what errors are over.
    """
    found, nats = loss_cells(table, ["token_class"]), table.nll.values
    kind, size, n_class = table.token_class.values, table.bytes.values, len(TOKEN_CLASSES)
    made = {
        "token_share": ("share of tokens", "1", (found.tokens / len(kind)).values),
        "loss_share": ("share of the loss", "1", np.bincount(kind, nats, n_class) / nats.sum()),
    }
    of = {"group": table.group.values, "cell": kind, "n_cell": n_class}
    within, _ = by_cell(nats / np.log(2), size, **of)
    made["bits_per_byte"] = ("bits per byte within the class", "bit/byte", within)
    sums = {"lead": nats / np.log(2)}
    if "excess" in table:
        sums["excess_lead"] = table.excess.values
    for name, bits in sums.items():
        value, deviation = by_cell(bits, size, whole=True, **of)
        error = norm(deviation[value.argmax()] - deviation)
        made[f"{name}_standard_error"] = ("error of the distance to the largest", "bit/byte", error)
    if "excess" in table:
        total = norm(deviation.sum(axis=0))
        made["total_excess"] = ("bits per byte above the reference", "bit/byte", value.sum())
        made["total_excess_standard_error"] = ("standard error of the total", "bit/byte", total)
    for name, (what, unit, values) in made.items():
        found[name] = variable("token_class" if np.ndim(values) else (), values, what, unit)
    split = loss_cells(table, ["token_class", "repetition"])
    for name in ("tokens", "loss"):
        for each in split.repetition.values:
            found[f"{name}_{each}"] = split[name].sel(repetition=each, drop=True)
        if "decile" in table:
            tenth = loss_cells(table, ["token_class", "decile"])
            found[f"{name}_by_decile"] = tenth[name]
    count, documents = (np.unique(table[name]).size for name in ("group", "document"))
    told = f"{count} {'documents' if count == documents else 'facts'}"
    return check(found.assign_attrs(observations=told))


DIAGNOSTIC = Diagnostic(
    tier="pass",
    start=lambda sample: Reducer(result=lambda table: token_loss(annotated(table, sample.data))),
)
