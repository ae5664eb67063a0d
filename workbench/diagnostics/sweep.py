"""One forward pass over a split that feeds any number of streaming reducers.

Letters: ``B`` rows of a batch, ``R`` sampled rows of it, ``T`` positions, ``V`` vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from workbench.evaluation import Columns, label_table, score
from workbench.model import Network, record
from workbench.text import Tokenizer, Tokens, Windows, windows

SAMPLED = 16  # of so many rows one is sampled ...
SAMPLED_TOKENS = 8192  # ... but never fewer tokens than this, if the split has them
TOKENS_PER_PASS = 2048


@dataclass
class Batch:
    """What a reducer is told about the rows of one forward pass."""

    window: Windows  # all B rows
    rows: NDArray[np.int64]  # (R,) which of them are sampled
    inputs: Tensor  # (R, T) ids of the sampled rows
    present: Tensor  # (R, T) False where a sampled row is padded
    group: NDArray[np.int64]  # (R,) sampled rows of one group are one observation
    logits: Tensor = field(default_factory=lambda: torch.empty(0))  # (B, T, V), after the pass
    columns: Columns = field(default_factory=dict)  # per scored target, after the pass


def nothing(batch: Batch) -> None:
    """Take no notice of a batch."""


@dataclass(frozen=True, kw_only=True)
class Reducer:
    """Three functions over one accumulator, whose memory must not grow with the text's length.

    Sums are kept in float64, so that results do not depend on the size of a batch.
    """

    result: Callable[[xr.Dataset], xr.Dataset]  # from the token table, after the last batch
    update: Callable[[Batch], None] = nothing  # after each pass: logits and scored columns
    sites: Mapping[str, Callable[[Tensor, Batch], None]] = field(default_factory=dict)
    # during each pass: the tensor of a site, sampled rows (R, ...) only; never kept


def sweep(
    model: Network,
    tokens: Tokens,
    tokenizer: Tokenizer,
    *,
    sequence_length: int,
    reducers: Sequence[Reducer] = (),
    limit: int | None = None,
    batch: int | None = None,
    watch: Callable[[float], object] | None = None,
) -> xr.Dataset:
    """Score a split once and feed every reducer on the way.

    Scores are taken on every token. Sites are observed on every 16th row, or on as many as it
    takes to see 8,192 tokens; which rows does not depend on `batch`.

    Parameters
    ----------
    model : Network
        Left as it was found.
    tokens : Tokens
        The split.
    tokenizer : Tokenizer
        The model's.
    sequence_length : int
        Tokens of context.
    reducers : sequence of Reducer
        Fed in order; ask each for its `result` with the returned table.
    limit : int, optional
        Score about this many tokens at most.
    batch : int, optional
        Rows in one pass; by default as many as hold 2,048 tokens.
    watch : callable, optional
        Called with the share that is done, 0 to 1.

    Returns
    -------
    Dataset
        The token table of `evaluation.token_table`.
    """
    n_row = _n_row(tokens, sequence_length, limit)
    every = max(1, min(SAMPLED, n_row * sequence_length // SAMPLED_TOKENS))
    device = model.head_weight.device
    done, parts = 0, []
    per_pass = batch or max(1, TOKENS_PER_PASS // sequence_length)
    for window in windows(tokens, sequence_length=sequence_length, limit=limit, batch=per_pass):
        rows = np.flatnonzero((done + np.arange(len(window.inputs))) % every == 0)
        first = np.minimum(window.offsets[rows, 0], len(tokens.ids) - 1)
        seen = Batch(
            window=window,
            rows=rows,
            inputs=torch.from_numpy(window.inputs[rows]).to(device),
            present=torch.from_numpy(window.present[rows]).to(device),
            group=tokens.group_of(first),
        )
        observers = _observers(reducers, seen) if len(rows) else {}
        with torch.inference_mode(), record(model, replace=observers):
            seen.logits = model(torch.from_numpy(window.inputs).to(device))
            seen.columns = score(seen.logits, window)
            for reducer in reducers:
                reducer.update(seen)
        parts.append(seen.columns)
        done += len(window.inputs)
        if watch is not None:
            watch(done / n_row)
    return label_table(parts, tokens, tokenizer, sequence_length=sequence_length)


def _n_row(tokens: Tokens, sequence_length: int, limit: int | None) -> int:
    """Count the rows of a sweep."""
    if tokens.answers is not None:
        return tokens.n_document
    n_target = len(tokens.ids) - 1
    return max(1, min(limit or n_target, n_target) // sequence_length)


def _observers(reducers: Sequence[Reducer], batch: Batch) -> dict[str, Callable[[Tensor], Tensor]]:
    """Make one observer a site, which hands the sampled rows to all who asked for it."""
    asked: dict[str, list[Callable[[Tensor, Batch], None]]] = {}
    for reducer in reducers:
        for site, take in reducer.sites.items():
            asked.setdefault(site, []).append(take)
    chosen = torch.from_numpy(batch.rows).to(batch.inputs.device)
    whole = len(batch.rows) == len(batch.window.inputs)

    def observer(takers: list[Callable[[Tensor, Batch], None]]) -> Callable[[Tensor], Tensor]:
        def observe(tensor: Tensor) -> Tensor:
            sampled = tensor if whole else tensor[chosen]
            for take in takers:
                take(sampled, batch)
            return tensor

        return observe

    return {site: observer(takers) for site, takers in asked.items()}
