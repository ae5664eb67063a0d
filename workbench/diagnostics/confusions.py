"""Which token was predicted in place of which, and what that cost."""

import numpy as np
import xarray as xr

from workbench.diagnostics.annotated import token_names
from workbench.diagnostics.cells import loss_cells
from workbench.result import check, variable
from workbench.text import TOKEN_CLASSES, Tokenizer


def confusions(
    table: xr.Dataset,
    tokenizer: Tokenizer,
    *,
    token_class: str = "",
    most: int = 20,
    against: xr.Dataset | None = None,
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
    against : Dataset, optional
        Annotated tokens of another run, the same ones: its bits are subtracted, pair by pair, and
        pairs are ranked by the size of the difference.

    Returns
    -------
    Dataset
        `loss_cells` by ``pair``, dearest first, with coords ``target`` and ``winner``;
        ``of_target``, how often the target stands in the table, and ``offset`` of the first case.
        With `against` only ``tokens``, ``other_tokens``, and ``contribution`` with its paired
        standard error; attr `compared` is 1.
    """
    size, pieces, rows = tokenizer.vocab_size, token_names(tokenizer), table
    if against is not None:  # its bits count with the other sign, over the same bytes
        less = against.assign(nll=-against.nll, bytes=0 * against.bytes)
        rows = xr.concat([table, less], "token", data_vars="all", combine_attrs="override")
    wrong = (rows["rank"] > 1).values
    if token_class:
        wrong &= rows.token_class.values == TOKEN_CLASSES.index(token_class)
    key = np.where(wrong, rows.id.values.astype(int) * size + rows.top1, -1)
    pair, index = np.unique(key, return_inverse=True)
    lost = np.where(pair < 0, 0, np.abs(np.bincount(index, rows.nll)))
    dearest = np.argsort(-lost, kind="stable")[: min(most, int((pair >= 0).sum()))]
    place = np.full(len(pair), len(dearest))  # of each pair in the answer, else after its end
    place[dearest] = np.arange(len(dearest))
    own = {"pair": (place[index], range(len(dearest) + 1))}
    found = loss_cells(rows, ["pair"], own=own).isel(pair=slice(len(dearest)))
    ids, winner = np.divmod(pair[dearest], size)
    first = [int(np.argmax(index == each)) for each in dearest]
    stands = np.bincount(table.id, minlength=size)[ids]
    found["of_target"] = variable("pair", stands, "times the target stands", "token")
    found["offset"] = variable("pair", rows.offset.values[first], "place of the first case")
    if against is not None:
        mine = np.bincount(place[index[: table.sizes["token"]]], minlength=len(dearest) + 1)[:-1]
        theirs = found.tokens.values - mine
        kept = ["contribution", "contribution_standard_error", "of_target", "offset"]
        found = found[kept].assign_attrs(compared=1, reference=table.attrs["reference"])
        found["contribution"].attrs["long_name"] = "part of the difference in bits per byte"
        found["tokens"] = variable("pair", mine, "tokens of this run", "token")
        found["other_tokens"] = variable("pair", theirs, "tokens of the other run", "token")
    names = {"target": ("pair", pieces[ids]), "winner": ("pair", pieces[winner])}
    return check(found.assign_coords(names))
