"""What a model computes at the place where each record must choose its answer.

Letters: ``B`` records, ``T`` positions, ``C`` channels, ``V`` vocabulary.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from workbench.model import Network, record
from workbench.text.context_gate import Branches, branches
from workbench.text.tokenizer import Tokenizer
from workbench.text.world import Record

# How far logits recomputed in float64 may be from the model's own, in units of their largest
# size: wide enough for bfloat16, far too narrow for a head that does something else.
AGREEMENT = 0.05


@dataclass(frozen=True, kw_only=True)
class BranchStates:
    """Hidden states and scores of records at their branch.

    The scores are ``hidden @ weight.T + bias`` in float64, before the softcap: the space in which
    they are a sum.
    """

    records: tuple[Record, ...]
    contexts: tuple[tuple[int, ...], ...]  # ids up to each prediction
    hidden: NDArray[np.float64]  # (record, channel) after the final norm
    scores: NDArray[np.float64]  # (record, vocabulary) logits before the softcap [nat]
    target: NDArray[np.int64]  # (record,)
    predicted: NDArray[np.int64]  # (record,)
    softcap: float | None

    @property
    def profile(self) -> tuple[str, ...]:
        """Profile of each record."""
        return tuple(each.profile for each in self.records)

    @property
    def logits(self) -> NDArray[np.float64]:
        """Logits as the softmax sees them, (record, vocabulary) [nat]."""
        return _capped(self.scores, self.softcap)


@dataclass(frozen=True, kw_only=True)
class Head:
    """The output head of a model in float64."""

    weight: NDArray[np.float64]  # (vocabulary, channel)
    bias: NDArray[np.float64]  # (vocabulary,), zeros where the model has none

    def scores(self, hidden: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map hidden states (..., channel) to logits before the softcap (..., vocabulary)."""
        return hidden @ self.weight.T + self.bias


def output_head(model: Network) -> Head:
    """Read the output head of a model."""
    weight = _float64(model.head_weight)
    bias = model.output_bias
    return Head(weight=weight, bias=np.zeros(len(weight)) if bias is None else _float64(bias))


def piece_order(pieces: Sequence[str]) -> NDArray[np.int64]:
    """Return each id's place when ids are sorted by text and then by id, to break ties.

    Examples
    --------
    >>> piece_order(["b", "a", "b"]).tolist()
    [1, 0, 2]
    """
    order = sorted(range(len(pieces)), key=lambda index: (pieces[index], index))
    place = np.empty(len(pieces), dtype=np.int64)
    place[order] = np.arange(len(pieces))
    return place


def predicted_ids(scores: NDArray[np.float64], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the winner of every row of scores; of equals, the first by `piece_order`."""
    tied = scores == scores.max(axis=-1, keepdims=True)
    winners: NDArray[np.int64] = np.where(tied, place, len(place)).argmin(axis=-1)
    return winners


def branch_states(
    model: Network,
    records: Sequence[Record],
    tokenizer: Tokenizer,
    *,
    context_length: int,
    batch: int = 64,
) -> BranchStates:
    """Run a model on the branch contexts of records and keep what decides there.

    Records are grouped by profile to find the branch; those too short for it are left out. Rows
    are padded on the right, which a causal model cannot see.

    Parameters
    ----------
    model : Network
        Any model with the site ``final_norm``, `head_weight` and `output_bias`.
    records : sequence of Record
        One profile or several; their order is kept.
    tokenizer : Tokenizer
        The model's.
    context_length : int
        Tokens the model is given at most [token].
    batch : int
        Records in one forward pass.

    Returns
    -------
    BranchStates
        One row a kept record.

    Raises
    ------
    ValueError
        If the head does not reproduce the model's own logits: a model whose logits are not
        ``softcap(hidden @ weight.T + bias)`` cannot be decomposed.
    """
    entries: list[tuple[int, tuple[int, ...], int]] = []
    for profile in dict.fromkeys(each.profile for each in records):
        numbers = [number for number, each in enumerate(records) if each.profile == profile]
        group = [records[number] for number in numbers]
        found = branches(group, tokenizer, context_length=context_length)
        places = [numbers[kept] for kept in found.kept]
        entries += zip(places, found.contexts, found.targets.tolist(), strict=True)
    entries.sort()
    return states_at(
        model,
        records=[records[number] for number, _, _ in entries],
        contexts=[context for _, context, _ in entries],
        targets=np.array([target for _, _, target in entries], dtype=np.int64),
        pieces=tokenizer.pieces,
        batch=batch,
    )


def profile_states(model: Network, found: Branches, *, pieces: Sequence[str]) -> BranchStates:
    """Run a model on the branches of one profile, already located; see `branch_states`."""
    asked = {name: getattr(found, name) for name in ("records", "contexts", "targets")}
    return states_at(model, **asked, pieces=pieces)


def states_at(
    model: Network,
    *,
    records: Sequence[Record],
    contexts: Sequence[Sequence[int]],
    targets: NDArray[np.int64],
    pieces: Sequence[str],
    batch: int = 64,
) -> BranchStates:
    """Run a model on given contexts and keep what decides at the end of each."""
    head = output_head(model)
    hidden = np.empty((len(contexts), head.weight.shape[1]))
    scores = np.empty((len(contexts), head.weight.shape[0]))
    softcap = model.config.softcap
    carrier = _carriers(contexts)
    whole = sorted(set(carrier.tolist()), key=lambda index: len(contexts[index]))
    for first in range(0, len(whole), batch):
        rows = whole[first : first + batch]
        of_row = {index: row for row, index in enumerate(rows)}
        asked = np.flatnonzero(np.isin(carrier, rows)).tolist()
        at = [(of_row[carrier[index]], len(contexts[index]) - 1) for index in asked]
        hidden[asked], own = _states(model, [contexts[index] for index in rows], at)
        scores[asked] = head.scores(hidden[asked])
        _agree(_capped(scores[asked], softcap), own)
    return BranchStates(
        records=tuple(records),
        contexts=tuple(map(tuple, contexts)),
        hidden=hidden,
        scores=scores,
        target=targets,
        predicted=predicted_ids(scores, piece_order(pieces)),
        softcap=softcap,
    )


def mean_hidden(model: Network, rows: Iterable[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Average the final hidden state over every position of a reference text.

    Parameters
    ----------
    model : Network
        The model to be decomposed.
    rows : iterable of (B, T) int64
        Batches of ids, every position of which counts: no padding.

    Returns
    -------
    (channel,) float64
        The mean; one batch is in memory at a time.

    Raises
    ------
    ValueError
        If there is no position at all.
    """
    total, count = np.zeros(model.head_weight.shape[1]), 0
    for ids in rows:
        with torch.no_grad(), record(model, ["final_norm"]) as seen:
            model(torch.as_tensor(ids, device=model.head_weight.device))
        hidden = seen["final_norm"].double()
        total += hidden.sum(dim=(0, 1)).cpu().numpy()
        count += hidden.shape[0] * hidden.shape[1]
    if not count:
        raise ValueError("rows hold no position to average over")
    return total / count


def _carriers(contexts: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Return for each context one that it begins, (record,): a causal model need run only those.

    In the order of words, whatever begins with a context comes right after it.
    """
    ids = [tuple(context) for context in contexts]
    order = sorted(range(len(ids)), key=lambda index: ids[index])
    carrier = np.arange(len(ids))
    for index, later in reversed(list(zip(order, order[1:], strict=False))):
        if ids[later][: len(ids[index])] == ids[index]:
            carrier[index] = carrier[later]
    return carrier


def padded(contexts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Put contexts into rows (B, T), zeros after their end: no position sees what follows it."""
    return pad_sequence([torch.tensor(ids) for ids in contexts], batch_first=True)


def _states(
    model: Network, contexts: Sequence[Sequence[int]], at: Sequence[tuple[int, int]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return hidden states (B, C) and logits (B, V) at places (row, position) of contexts."""
    with torch.no_grad(), record(model, ["final_norm"]) as seen:
        logits = model(padded(contexts).to(model.head_weight.device))
    rows, positions = torch.tensor(at, device=logits.device).T
    return _float64(seen["final_norm"][rows, positions]), _float64(logits[rows, positions])


def _capped(scores: NDArray[np.float64], softcap: float | None) -> NDArray[np.float64]:
    """Bound scores as the model does."""
    return scores if softcap is None else softcap * np.tanh(scores / softcap)


def _agree(recomputed: NDArray[np.float64], own: NDArray[np.float64]) -> None:
    """Refuse a model whose head is not the one that is decomposed."""
    worst = float(np.abs(recomputed - own).max())
    if not worst <= AGREEMENT * float(np.abs(own).max()) + 1e-6:
        raise ValueError(
            f"logits recomputed from final_norm, head_weight and output_bias differ from the "
            f"model's own by up to {worst:.3g} nat; is there something after the head?"
        )


def _float64(tensor: torch.Tensor) -> NDArray[np.float64]:
    """Copy a tensor of any device and dtype into float64 NumPy."""
    array: NDArray[np.float64] = tensor.detach().double().cpu().numpy()
    return array
