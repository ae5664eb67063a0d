"""Ratios of sums over groups of tokens, with errors that may be subtracted from each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.result import check, variable
from workbench.text import TOKEN_CLASSES

Floats = NDArray[np.float64]
Key = tuple[NDArray[Any], Sequence[Any]]


def by_cell(
    top: NDArray[np.generic],
    bottom: NDArray[np.generic],
    *,
    group: NDArray[np.generic],
    cell: NDArray[np.integer],
    n_cell: int,
    whole: bool = False,
) -> tuple[Floats, Floats]:
    """Divide sums of `top` by sums of `bottom` in each cell, and tell how the groups disagree.

    Parameters
    ----------
    top, bottom : (token,)
        Numerator and denominator.
    group : (token,) int
        Tokens of one group are one observation.
    cell : (token,) int
        Cell of each token, from 0.
    n_cell : int
        How many cells there are.
    whole : bool
        Divide by the sum over all cells, so that the ratios add up.

    Returns
    -------
    ratio : (cell,) float64
        NaN where there is nothing to divide by.
    deviation : (cell, group) float64
        What each group adds to the error: the norm of a row is the standard error that
        `evaluation.ratio_error` gives, and the norm of a difference of rows is the standard error
        of the difference, paired over groups. NaN where the cell has fewer than two groups.
    """
    _, index = np.unique(group, return_inverse=True)
    shape = (n_cell, int(index.max()) + 1)
    at = cell.astype(np.int64) * shape[1] + index
    upper, lower = (
        np.bincount(at, weights=each, minlength=shape[0] * shape[1]).reshape(shape)
        for each in (top, bottom)
    )
    if whole:
        lower = np.broadcast_to(lower.sum(axis=0), shape)
    total, filled = lower.sum(axis=1), (lower > 0).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(total > 0, upper.sum(axis=1) / total, np.nan)
        factor = np.where(filled > 1, np.sqrt(filled / (filled - 1)), np.nan) / total
        return ratio, factor[:, None] * (upper - ratio[:, None] * lower)


def norm(deviation: Floats) -> Floats:
    """Turn deviations (..., group) into standard errors (...)."""
    error: Floats = np.sqrt(np.square(deviation).sum(axis=-1))
    return error


def loss_cells(
    table: xr.Dataset, by: Sequence[str], *, own: Mapping[str, Key] | None = None
) -> xr.Dataset:
    """Cross the loss by any of class, frequency decile, repetition, position and document.

    Contributions and excesses add up to those of the whole table, whatever is crossed; the other
    measures are means over tokens. A cell of few tokens has its numbers all the same; readings
    and figures do not judge it.

    Parameters
    ----------
    table : Dataset
        Annotated token table, see `annotated`; a bare one has neither excess nor deciles.
    by : sequence of str
        Of ``token_class, decile, repetition, bin, document``, where a bin is an interval of
        positions, cut at powers of two; or names in `own`.
    own : mapping, optional
        More to cross by: for each dim the cell of each token, and the names of the cells.

    Returns
    -------
    Dataset
        Dims `by`, ``tokens``, and with standard errors over groups: ``loss`` [nat/token];
        ``contribution`` and ``excess`` over the reference [bit/byte]; of the token predicted first
        ``confidence``, its probability, ``accuracy`` and ``gap``, the first minus the second; and
        ``surprise``, loss minus entropy [nat/token].
    """
    known = {**_keys(table), **(own or {})}
    shape = tuple(len(known[name][1]) for name in by)
    cell = np.ravel_multi_index([known[name][0].astype(int) for name in by], shape)
    one, size = np.ones(cell.size), table.bytes.values
    nll, sure, hit = table.nll.values, table.top1_probability.values, table["rank"].values == 1
    measures = {
        "loss": ("mean loss", "nat/token", nll),
        "contribution": ("part of the total bits per byte", "bit/byte", nll / np.log(2)),
        "confidence": ("mean probability of the first", "1", sure),
        "accuracy": ("share of firsts that are right", "1", hit),
        "gap": ("probability of the first minus accuracy", "1", sure - hit),
        "surprise": ("loss minus entropy", "nat/token", nll - table.entropy.values),
    }
    if "excess" in table:
        above = "part of the bits above the reference"
        measures["excess"] = above, "bit/byte", table.excess.values
    count = np.bincount(cell, minlength=int(np.prod(shape))).reshape(shape)
    data = {"tokens": variable(by, count.astype(float), "tokens", "token")}
    for name, (what, unit, top) in measures.items():
        whole = unit == "bit/byte"
        of = {"group": table.group.values, "cell": cell, "n_cell": count.size, "whole": whole}
        ratio, deviation = by_cell(top, size if whole else one, **of)
        data[name] = variable(by, ratio.reshape(shape), what, unit)
        error, told = norm(deviation).reshape(shape), f"standard error: {what}"
        data[f"{name}_standard_error"] = variable(by, error, told, unit)
    coords = {name: list(known[name][1]) for name in by}
    attrs = {"reference": table.attrs["reference"]} if "excess" in table else {}
    return check(xr.Dataset(data, coords=coords, attrs=attrs))


def _keys(table: xr.Dataset) -> dict[str, Key]:
    """Say by what a table may be crossed."""
    context, place = int(table.attrs["context"]), table.position.values
    starts = [0, *(2**power for power in range(context.bit_length()) if 2**power < context)]
    pairs = zip(starts, [*starts[1:], context], strict=True)
    bins = [f"{a}" if b == a + 1 else f"{a} to {b - 1}" for a, b in pairs]
    known: dict[str, Key] = (
        {"decile": (table.decile.values, range(10))} if "decile" in table else {}
    )
    return known | {
        "token_class": (table.token_class.values, TOKEN_CLASSES),
        "repetition": (table.repeated.values, ("new", "repeated")),
        "bin": (np.searchsorted(starts, place, side="right") - 1, bins),
        "document": (table.document.values, range(int(table.document.max()) + 1)),
    }
