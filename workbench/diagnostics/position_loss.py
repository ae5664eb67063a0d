"""What context is worth: loss by position in it, and at the beginning of sentences."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.diagnostics.cells import Floats, by_cell, loss_cells, norm
from workbench.result import check, variable
from workbench.text import TOKEN_CLASSES

FIRST = 16  # positions that count as the beginning of a context, or a quarter of a short one


def position_loss(table: xr.Dataset) -> xr.Dataset:
    """Follow the loss along the context, and over the boundaries of sentences.

    ``context_gain`` is the mean loss of the first 16 positions minus that of the second half of
    the context; ``first_penalty`` is what those first positions add to the bits per byte beyond
    the mean of the second half. ``sentence_gap`` is the mean loss of first words of sentences minus
    that of other words that begin with a space, ``sentence_excess`` the same of the excess over
    the reference: a gap that the reference shares is not the model's.

    Parameters
    ----------
    table : Dataset
        Annotated token table of packed text; see `annotated`.

    Returns
    -------
    Dataset
        `loss_cells` by ``bin`` of positions, and the four numbers with their standard errors,
        paired over groups; NaN where one side of a comparison is empty.
    """
    found, context = loss_cells(table, ["bin"]), int(table.attrs["context"])
    place, nats, excess = table.position.values, table.nll.values, table.excess.values * np.log(2)
    first = place < min(FIRST, max(1, context // 4))
    opens = table.opens_sentence.values.astype(bool)
    words = (table.token_class.values == TOKEN_CLASSES.index("word_start")) & ~opens
    share = first.sum() / np.log(2) / table.bytes.values.sum()
    gain = _contrast(table, nats, first, place >= context // 2)
    heads = "of sentences' first words minus other words"
    made = {
        "context_gain": ("loss of first positions minus second half", "nat/token", gain),
        "first_penalty": ("cost of first positions beyond later", "bit/byte", gain * share),
        "sentence_gap": (f"loss {heads}", "nat/token", _contrast(table, nats, opens, words)),
        "sentence_excess": (f"excess {heads}", "nat/token", _contrast(table, excess, opens, words)),
    }
    for name, (what, unit, pair) in made.items():
        found[name] = variable((), pair[0], what, unit)
        found[f"{name}_standard_error"] = variable((), pair[1], f"standard error: {what}", unit)
    found["sentences"] = variable((), int(opens.sum()), "first words of sentences", "token")
    return check(found)


def _contrast(
    table: xr.Dataset, values: Floats, one: NDArray[np.bool_], other: NDArray[np.bool_]
) -> Floats:
    """Return the mean of one set of tokens minus that of another, and its standard error, (2,)."""
    cell, count = np.where(one, 0, np.where(other, 1, 2)), np.ones(one.size)
    mean, deviation = by_cell(values, count, group=table.group.values, cell=cell, n_cell=3)
    return np.array([mean[0] - mean[1], norm(deviation[0] - deviation[1])])
