"""Which token was predicted in place of which, and what that cost."""

import numpy as np
import xarray as xr

from workbench.diagnostics.annotated import token_names
from workbench.diagnostics.cells import loss_cells
from workbench.result import check, variable
from workbench.text import TOKEN_CLASSES, Tokenizer


def confusions(
    table: xr.Dataset, tokenizer: Tokenizer, *, token_class: str = "", most: int = 20
) -> xr.Dataset:
    """Rank pairs of target and token predicted first by the bits lost where they differ.

    The bits are the whole loss of those tokens, the most that mending the pair could give.

    Parameters
    ----------
    table : Dataset
        Annotated token table.
    tokenizer : Tokenizer
        Names the tokens.
    token_class : str, optional
        Class of the target; by default any.
    most : int
        Pairs kept.

    Returns
    -------
    Dataset
        `loss_cells` by ``pair``, dearest first, with coords ``target`` and ``winner``;
        ``of_target``, how often the target stands in the table, and ``offset`` of the first case.
    """
    size, pieces = tokenizer.vocab_size, token_names(tokenizer)
    wrong = (table["rank"] > 1).values
    if token_class:
        wrong &= table.token_class.values == TOKEN_CLASSES.index(token_class)
    key = np.where(wrong, table.id.values.astype(int) * size + table.top1, -1)
    pair, index = np.unique(key, return_inverse=True)
    lost = np.where(pair < 0, 0, np.bincount(index, table.nll))
    dearest = np.argsort(-lost, kind="stable")[: min(most, int((pair >= 0).sum()))]
    place = np.full(len(pair), len(dearest))  # of each pair in the answer, else after its end
    place[dearest] = np.arange(len(dearest))
    own = {"pair": (place[index], range(len(dearest) + 1))}
    found = loss_cells(table, ["pair"], own=own).isel(pair=slice(len(dearest)))
    ids, winner = np.divmod(pair[dearest], size)
    first = [int(np.argmax(index == each)) for each in dearest]
    stands = np.bincount(table.id, minlength=size)[ids]
    found["of_target"] = variable("pair", stands, "times the target stands", "token")
    found["offset"] = variable("pair", table.offset.values[first], "place of the first case")
    names = {"target": ("pair", pieces[ids]), "winner": ("pair", pieces[winner])}
    return check(found.assign_coords(names))
