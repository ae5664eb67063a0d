"""Where the loss is: by class of the target token, by repetition and by frequency."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.diagnostics.sample import Diagnostic, Sample
from workbench.diagnostics.sweep import Reducer
from workbench.evaluation import ratio_error
from workbench.result import check, variable
from workbench.text import TOKEN_CLASSES, frequency_deciles


def token_loss(table: xr.Dataset, *, deciles: NDArray[np.int8] | None = None) -> xr.Dataset:
    """Split bits per byte exactly over the classes of the target tokens.

    ``contribution`` sums to the bits per byte of the whole table. ``bits_per_byte`` is within the
    class: its bits over its own bytes. A class that was not met has 0 tokens and no loss.

    Parameters
    ----------
    table : Dataset
        Token table of `evaluation.token_table`.
    deciles : (vocabulary,) int8, optional
        Frequency decile of each token id, for ``loss_by_decile``.

    Returns
    -------
    Dataset
        Dim ``token_class``, and ``decile`` when `deciles` is given.
    """
    kinds = table.token_class.values.astype(int)
    nll, size = table.nll.values.astype(np.float64), table.bytes.values.astype(np.float64)
    again = table.repeated.values.astype(bool)
    n_class = len(TOKEN_CLASSES)
    tokens = np.bincount(kinds, minlength=n_class).astype(float)
    nats = np.bincount(kinds, weights=nll, minlength=n_class)
    held = np.bincount(kinds, weights=size, minlength=n_class)
    bits = nats / np.log(2)
    errors = _errors(kinds, bits_of=nll / np.log(2), size=size, group=table.group.values)
    data = {
        "tokens": ("tokens of the class", "token", tokens),
        "token_share": ("share of tokens", "1", tokens / tokens.sum()),
        "loss": ("mean loss of the class", "nat/token", _ratio(nats, tokens)),
        "bits_per_byte": ("bits per byte within the class", "bit/byte", _ratio(bits, held)),
        "contribution": ("share of the total bits per byte", "bit/byte", bits / size.sum()),
        "contribution_standard_error": (
            "standard error of the contribution",
            "bit/byte",
            errors[0],
        ),
        "lead_standard_error": (
            "standard error of the distance to the largest contribution",
            "bit/byte",
            errors[1],
        ),
        "loss_share": ("share of the loss", "1", nats / nats.sum()),
    }
    for name, chosen in {"new": ~again, "repeated": again}.items():
        count = np.bincount(kinds[chosen], minlength=n_class).astype(float)
        total = np.bincount(kinds[chosen], weights=nll[chosen], minlength=n_class)
        data[f"tokens_{name}"] = (f"tokens of the class, {name} in the context", "token", count)
        data[f"loss_{name}"] = (
            f"mean loss, {name} in the context",
            "nat/token",
            _ratio(total, count),
        )
    result = xr.Dataset(
        {
            name: variable("token_class", values, what, unit)
            for name, (what, unit, values) in data.items()
        },
        coords={"token_class": list(TOKEN_CLASSES)},
    )
    if deciles is not None:
        result = result.merge(_by_decile(kinds, deciles[table.id.values], nll))
    return check(result)


def _errors(
    kinds: NDArray[np.int64],
    *,
    bits_of: NDArray[np.float64],
    size: NDArray[np.float64],
    group: NDArray[np.generic],
) -> NDArray[np.float64]:
    """Return standard errors (2, class): of each contribution, and of its distance to the largest.

    The distance is paired: both contributions come from the same groups.
    """
    n_class = len(TOKEN_CLASSES)
    top = int(np.bincount(kinds, weights=bits_of, minlength=n_class).argmax())
    found = np.full((2, n_class), np.nan)
    for k in range(n_class):
        own = 1.0 * (kinds == k)
        for row, sign in enumerate((own, (kinds == top) - own)):
            error = ratio_error(bits_of * sign, size, group)
            found[row, k] = np.nan if error is None else error
    return found


def _by_decile(
    kinds: NDArray[np.int64], deciles: NDArray[np.int8], nll: NDArray[np.float64]
) -> xr.Dataset:
    """Cross the classes with frequency deciles."""
    shape = (len(TOKEN_CLASSES), 10)
    cell = np.ravel_multi_index((kinds, deciles.astype(int)), shape)
    tokens = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).astype(float)
    nats = np.bincount(cell, weights=nll, minlength=shape[0] * shape[1]).reshape(shape)
    dims = ("token_class", "decile")
    return xr.Dataset(
        {
            "tokens_by_decile": variable(dims, tokens, "tokens by frequency decile", "token"),
            "loss_by_decile": variable(
                dims, _ratio(nats, tokens), "mean loss by frequency decile", "nat/token"
            ),
        },
        coords={"token_class": list(TOKEN_CLASSES), "decile": np.arange(10)},
    )


def _ratio(top: NDArray[Any], bottom: NDArray[Any]) -> NDArray[np.float64]:
    """Divide, NaN where there is nothing to divide by."""
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def _start(sample: Sample) -> Reducer:
    """Split the loss over token classes and frequency deciles of the training split."""
    counts = np.bincount(sample.data.train.ids, minlength=sample.tokenizer.vocab_size)
    deciles = frequency_deciles(counts)
    return Reducer(result=lambda table: token_loss(table, deciles=deciles))


DIAGNOSTIC = Diagnostic(tier="pass", start=_start)
