"""How well a model answers one profile: accuracy, rank, diversity, ownership."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.diagnostics.branch import piece_order, predicted_ids


@dataclass(frozen=True, kw_only=True)
class BranchProfile:
    """Answers of one profile; every rate is NaN when there is no record."""

    count: int
    accuracy: float
    macro_recall: float  # mean over targets of the share of their records that are right
    target_probability: float
    target_margin: float  # mean of P(target) - max P(other)
    target_rank: float  # mean, 1 is best
    top3: float
    top5: float
    target_unique: int
    predicted_unique: int
    target_coverage: float  # share of targets predicted anywhere in the profile
    owned_coverage: float  # share of targets predicted for a record that has them
    dominant: int  # id of the most frequent prediction; -1 without records
    dominant_token: str
    dominant_rate: float
    dominant_excess: float  # dominant_rate - share of records that have this target
    collapsed: bool
    missing: tuple[tuple[str, int], ...]  # targets never predicted, with their records
    ceiling: float = 1.0  # best coverage that any hidden states could reach, where it was tested


def branch_profile(
    logits: NDArray[np.float64], target: NDArray[np.int64], *, pieces: Sequence[str]
) -> BranchProfile:
    """Summarise the predictions of one profile.

    `target_coverage` alone is no success: answers that are permuted among the records cover every
    target. Read `owned_coverage` beside it.

    Parameters
    ----------
    logits : (record, vocabulary) float64
        As the softmax sees them [nat].
    target : (record,) int64
        Right ids.
    pieces : sequence of str
        Text of every id; equal probabilities are ordered by it, then by id.

    Returns
    -------
    BranchProfile
        Rates between 0 and 1.

    Examples
    --------
    >>> swapped = np.eye(4)[[1, 0, 3, 2]]
    >>> found = branch_profile(swapped, np.arange(4), pieces=["a", "b", "c", "d"])
    >>> found.target_coverage, found.owned_coverage, found.accuracy
    (1.0, 0.0, 0.0)
    """
    count = len(target)
    place = piece_order(pieces)
    predicted = predicted_ids(logits, place) if count else np.empty(0, dtype=np.int64)
    right = predicted == target
    targets, predictions = _counted(target, place), _counted(predicted, place)
    wanted, given = set(target.tolist()), set(predicted.tolist())
    owned = set(target[right].tolist())
    dominant = predictions[0][0] if count else -1
    probability, margin, rank = standing(logits, target, place=place)
    return BranchProfile(
        count=count,
        accuracy=_mean(right),
        macro_recall=_mean([right[target == each].mean() for each in sorted(wanted)]),
        target_probability=_mean(probability),
        target_margin=_mean(margin),
        target_rank=_mean(rank),
        top3=_mean(rank <= 3),
        top5=_mean(rank <= 5),
        target_unique=len(wanted),
        predicted_unique=len(given),
        target_coverage=len(wanted & given) / len(wanted) if wanted else np.nan,
        owned_coverage=len(owned) / len(wanted) if wanted else np.nan,
        dominant=dominant,
        dominant_token=pieces[dominant] if count else "",
        dominant_rate=predictions[0][1] / count if count else np.nan,
        dominant_excess=predictions[0][1] / count - _mean(target == dominant) if count else np.nan,
        collapsed=count > 1 and len(wanted) > 1 and len(given) == 1,
        missing=tuple((pieces[each], n) for each, n in targets if each not in given),
    )


def standing(
    logits: NDArray[np.float64], target: NDArray[np.int64], *, place: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return each target's probability, its margin over the best other, and its rank.

    Parameters
    ----------
    logits : (record, vocabulary) float64
        As the softmax sees them [nat].
    target : (record,) int64
        Right ids.
    place : (vocabulary,) int64
        Order of ids of equal probability; see `workbench.diagnostics.branch.piece_order`.

    Returns
    -------
    tuple of (record,) arrays
        Probability, probability less that of the best other, rank from 1.
    """
    rows = np.arange(len(target))
    probability = softmax(logits)
    own = probability[rows, target]
    own_logit = logits[rows, target][:, None]
    ahead = (logits > own_logit) | ((logits == own_logit) & (place < place[target][:, None]))
    probability[rows, target] = -1.0  # so that the maximum is over the others
    return own, own - probability.max(axis=1, initial=0.0), 1 + ahead.sum(axis=1)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities along the last dim of logits [nat]."""
    if not len(logits):
        return np.zeros_like(logits)
    weight = np.exp(logits - logits.max(axis=-1, keepdims=True))
    share: NDArray[np.float64] = weight / weight.sum(axis=-1, keepdims=True)
    return share


def _counted(ids: NDArray[np.int64], place: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Count ids, most frequent first; of equals, the first in text."""
    counts = Counter(ids.tolist())
    return sorted(counts.items(), key=lambda entry: (-entry[1], place[entry[0]]))


def _mean(
    values: NDArray[np.float64] | NDArray[np.bool_] | NDArray[np.int64] | list[float],
) -> float:
    """Average, or NaN of nothing."""
    return float(np.mean(values)) if len(values) else np.nan
