"""Whether a score may be believed: four things that hold of every legal evaluation, measured.

Three are counted on the run that was made, from its events in order. That neither later text nor
the target itself moves a score cannot be seen in one run: it is probed by further runs on a small
part, with the updates of the protocol. What a scorer says it learned from is its own word; the
probe needs no such word.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.evaluation.score import target_offsets
from workbench.evaluation.score_first import Event
from workbench.text import Tokens

Scorer = Callable[[Tokens], Iterable[Event]]

SAMPLED = 16  # one target in so many has its probabilities summed
PLACES = 2  # where the text is changed


class Ledger:
    """What a run scored and learned from, in order."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.times = np.zeros(len(tokens.ids), dtype=np.uint16)  # each target was scored
        self.learned = np.full(tokens.n_document, -1)  # latest target each copy learned from
        self.late = 0  # targets scored by weights that had learned from them, or from later ones
        self.excess = 0.0  # of a sum of probabilities over or under 1, at most

    def note(self, event: Event) -> None:
        """Enter an event when it happens."""
        copies = np.broadcast_to(event.copies, event.offsets.shape)
        if event.log_p is None:
            np.maximum.at(self.learned, copies, event.offsets)
            return
        self.late += int((self.learned[copies] >= event.offsets).sum())
        np.add.at(self.times, event.offsets, 1)
        total = event.log_p[::SAMPLED].double().exp().sum(dim=-1)
        self.excess = float(np.maximum(self.excess, (total - 1).abs().max().item()))  # NaN stays


def certify(ledger: Ledger, scorer: Scorer, *, n_probed: int) -> dict[str, dict[str, Any]]:
    """Judge an evaluation: of the run by its ledger, and of its scorer by changing the text.

    Parameters
    ----------
    ledger : Ledger
        Of the run that is certified.
    scorer : callable
        Yields the events of the same protocol on any tokens; of the first `n_probed` at least.
    n_probed : int
        Targets scored five times more: as they are, and changed from each of two places on.

    Returns
    -------
    dict
        ``causal`` (change of a loss [nat] or of a probability, at most), ``scored_before_updated``
        (targets scored by weights that had learned from them or from later ones), ``one_pass``
        (targets scored twice, or left out before the last) and ``normalised`` (distance of a sum of
        probabilities from 1, at most), each with ``value, limit, passed, measured_on``.
    """
    due = target_offsets(ledger.tokens)
    due = due[due <= np.flatnonzero(ledger.times).max(initial=0)]
    run = f"this run, {len(due):,} targets"
    probed = f"probe, first {n_probed:,} targets scored again, {2 * PLACES} changed texts"
    found = {
        "causal": (_change(scorer, ledger.tokens, due[:n_probed]), 1e-4, probed),
        "scored_before_updated": (ledger.late, 0, run),
        "one_pass": (int((ledger.times[due] != 1).sum()), 0, run),
        "normalised": (ledger.excess, 1e-4, f"{run}, one in {SAMPLED}"),
    }
    return {
        name: {"value": value, "limit": limit, "passed": value <= limit, "measured_on": on}
        for name, (value, limit, on) in found.items()
    }


def _change(scorer: Scorer, tokens: Tokens, offsets: NDArray[np.int64]) -> float:
    """Return how far losses before a place, and the prediction at it, move with the text from it.

    Once with the target alone replaced, once with all that follows it too.
    """
    rng, late = np.random.default_rng(0), offsets[len(offsets) // 4 :]
    places = rng.choice(late, min(PLACES, len(late)), replace=False)
    nll, rows = _replay(scorer, tokens, places)
    moved = [0.0 if rows else np.nan]
    for place, row in rows.items():
        for stop in (place + 1, len(tokens.ids)):
            ids = tokens.ids.copy()
            shift = rng.integers(1, len(row), stop - place)
            ids[place:stop] = (ids[place:stop] + shift) % len(row)
            again, predicted = _replay(scorer, replace(tokens, ids=ids), places)
            moved.append(np.abs(again - nll)[:place].max())
            moved.append((predicted[place].exp() - row.exp()).abs().max().item())
    return float(np.max(moved))  # NaN stays


def _replay(
    scorer: Scorer, tokens: Tokens, places: NDArray[np.int64]
) -> tuple[NDArray[np.float64], dict[int, Tensor]]:
    """Score tokens: loss by offset, 0 where none is, and log-probabilities (V,) at some places."""
    nll = np.zeros(len(tokens.ids))
    rows: dict[int, Tensor] = {}
    for event in scorer(tokens):
        if event.log_p is not None:
            log_p, targets = event.log_p.cpu(), torch.from_numpy(tokens.ids[event.offsets]).long()
            nll[event.offsets] = -log_p.gather(1, targets[:, None])[:, 0].numpy()
            at = np.flatnonzero(np.isin(event.offsets, places))
            rows |= {int(event.offsets[index]): log_p[index] for index in at}
    return nll, rows
