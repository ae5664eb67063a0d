"""Is the embedding wasted? Its rank by kinds of tokens, and tokens with nearly the same row."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from workbench.diagnostics.sample import Diagnostic, Sample
from workbench.diagnostics.spectrum import (
    gaussian_effective_rank,
    singular_values,
    spectral_ranks,
)
from workbench.result import check, variable
from workbench.text import TOKEN_CLASSES, class_scheme, frequency_deciles

TWIN = 0.95  # cosine from which two rows are near duplicates
CHUNK = 2048  # rows compared with all others at a time


def embedding(
    weight: Tensor,
    *,
    parts: Mapping[str, NDArray[np.bool_]],
    pieces: Sequence[str],
    start: Tensor | None = None,
    counts: NDArray[np.int64] | None = None,
) -> xr.Dataset:
    """Measure the rank of an embedding, whole and in parts, and find its near duplicates.

    Parameters
    ----------
    weight : (vocabulary, channel) tensor
    parts : mapping of str to (vocabulary,) bool
        Sets of rows to judge beside ``all``. One with fewer rows than channels is not judged: its
        rank would say how few they are.
    pieces : sequence of str
        Text of each id.
    start : (vocabulary, channel) tensor, optional
        The embedding before training.
    counts : (vocabulary,) int64, optional
        How often each token occurs in training: rows of tokens that hardly do were hardly learned.

    Returns
    -------
    Dataset
        By ``part``: `rows`, `effective_rank_ratio` over a Gaussian of as many rows, and with
        `start` the same before training. By ``vocabulary``: `twin_cosine` and `twin`, the largest
        cosine with another row and that row's id. Attr `twins`: rows with a cosine of `TWIN`.
    """
    sets = {"all": np.ones(len(weight), dtype=bool), **parts}
    cosine, twin = _twins(weight)
    data = {
        "rows": variable("part", [int(each.sum()) for each in sets.values()], "rows", "token"),
        "effective_rank_ratio": variable(
            "part", _ratios(weight, sets), "effective rank of the rows over its Gaussian"
        ),
        "twin_cosine": variable("vocabulary", cosine, "cosine with the nearest other row"),
        "twin": variable("vocabulary", twin, "id of the nearest other row"),
    }
    if start is not None:
        before = variable("part", _ratios(start, sets), "the same before training")
        data["effective_rank_start"] = before
    if counts is not None:
        data["count"] = variable("vocabulary", counts, "occurrences in training", "token")
    coords = {"part": list(sets), "token": ("vocabulary", np.array(pieces, dtype=str))}
    attrs = {"twins": int(np.sum(cosine >= TWIN)), "threshold": TWIN}
    return check(xr.Dataset(data, coords=coords, attrs=attrs))


def _ratios(weight: Tensor, sets: Mapping[str, NDArray[np.bool_]]) -> list[float]:
    """Return the effective rank of each set of rows over chance; NaN for too few rows."""
    found = []
    for chosen in sets.values():
        rows = weight[torch.from_numpy(chosen).to(weight.device)]
        enough = len(rows) >= weight.shape[1]
        sigma = singular_values(rows) if enough else np.full(1, np.nan)
        rank = spectral_ranks(sigma, tolerance=0)["effective_rank"]
        found.append(rank / gaussian_effective_rank(*rows.shape) if enough else np.nan)
    return found


def _twins(weight: Tensor) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Find the nearest other row of every row by cosine; rows of zeros have none (NaN)."""
    unit = torch.nn.functional.normalize(weight.detach().float(), dim=1)
    cosine, twin = torch.full((len(unit),), torch.nan), torch.zeros(len(unit), dtype=torch.int64)
    for begin in range(0, len(unit), CHUNK):
        here = slice(begin, begin + CHUNK)
        near = unit[here] @ unit.mT
        near.diagonal(begin).fill_(-2.0)
        cosine[here], twin[here] = near.max(dim=1)
    cosine[(unit == 0).all(dim=1).cpu()] = torch.nan
    return cosine.double().numpy(), twin.numpy()


def _measure(sample: Sample) -> xr.Dataset:
    """Measure the embedding of a run, by token class and by frequency decile."""
    tokenizer, weight = sample.tokenizer, sample.model.matrices()[0].weight
    base = class_scheme(tokenizer).base
    counts = np.bincount(sample.data.train.ids, minlength=len(weight))
    decile = frequency_deciles(counts)
    parts = {name: base == at for at, name in enumerate(TOKEN_CLASSES)}
    parts |= {f"decile {at}": decile == at for at in range(10)}
    first = sample.checkpoints[0].matrices()[0].weight if 0 in sample.checkpoints else None
    return embedding(weight, parts=parts, pieces=tokenizer.pieces, start=first, counts=counts)


DIAGNOSTIC = Diagnostic(tier="weights", measure=_measure)
