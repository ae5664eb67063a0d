"""How well a model answers one profile: accuracy, rank, diversity, ownership."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.diagnostics.branch import piece_order, predicted_ids

KEPT = 12  # entries of a counter that are kept
NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class BranchProfile:
    """Answers of one profile; every rate is NaN when there is no record."""

    count: int
    correct: int
    accuracy: float
    macro_recall: float  # mean over targets of the share of their records that are right
    target_probability: float
    predicted_probability: float
    target_margin: float  # mean of P(target) - max P(other)
    target_rank: float  # mean, 1 is best
    top1: float
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
    targets: tuple[tuple[str, int], ...]
    predictions: tuple[tuple[str, int], ...]
    confusions: tuple[tuple[str, str, int], ...]  # target, prediction, records


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
    probability, margin, rank = _standing(logits, target, place=place)
    return BranchProfile(
        count=count,
        correct=int(right.sum()),
        accuracy=_mean(right),
        macro_recall=_mean([right[target == each].mean() for each in sorted(wanted)]),
        target_probability=_mean(probability),
        predicted_probability=_mean(_softmax(logits).max(axis=1)) if count else NAN,
        target_margin=_mean(margin),
        target_rank=_mean(rank),
        top1=_mean(rank <= 1),
        top3=_mean(rank <= 3),
        top5=_mean(rank <= 5),
        target_unique=len(wanted),
        predicted_unique=len(given),
        target_coverage=len(wanted & given) / len(wanted) if wanted else NAN,
        owned_coverage=len(owned) / len(wanted) if wanted else NAN,
        dominant=dominant,
        dominant_token=pieces[dominant] if count else "",
        dominant_rate=predictions[0][1] / count if count else NAN,
        dominant_excess=predictions[0][1] / count - _mean(target == dominant) if count else NAN,
        collapsed=count > 1 and len(wanted) > 1 and len(given) == 1,
        missing=tuple((pieces[each], n) for each, n in targets if each not in given),
        targets=tuple((pieces[each], n) for each, n in targets[:KEPT]),
        predictions=tuple((pieces[each], n) for each, n in predictions[:KEPT]),
        confusions=_confusions(target[~right], predicted[~right], place=place, pieces=pieces),
    )


def _standing(
    logits: NDArray[np.float64], target: NDArray[np.int64], *, place: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return each target's probability, its margin over the best other, and its rank."""
    rows = np.arange(len(target))
    probability = _softmax(logits)
    own = probability[rows, target]
    own_logit = logits[rows, target][:, None]
    ahead = (logits > own_logit) | ((logits == own_logit) & (place < place[target][:, None]))
    probability[rows, target] = -1.0  # so that the maximum is over the others
    return own, own - probability.max(axis=1, initial=0.0), 1 + ahead.sum(axis=1)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities along the last dim."""
    if not len(logits):
        return np.zeros_like(logits)
    weight = np.exp(logits - logits.max(axis=-1, keepdims=True))
    share: NDArray[np.float64] = weight / weight.sum(axis=-1, keepdims=True)
    return share


def _counted(ids: NDArray[np.int64], place: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Count ids, most frequent first; of equals, the first in text."""
    counts = Counter(ids.tolist())
    return sorted(counts.items(), key=lambda entry: (-entry[1], place[entry[0]]))


def _confusions(
    target: NDArray[np.int64],
    predicted: NDArray[np.int64],
    *,
    place: NDArray[np.int64],
    pieces: Sequence[str],
) -> tuple[tuple[str, str, int], ...]:
    """Count wrong pairs, most frequent first."""
    counts = Counter(zip(target.tolist(), predicted.tolist(), strict=True))
    ranked = sorted(
        counts.items(), key=lambda entry: (-entry[1], place[entry[0][0]], place[entry[0][1]])
    )
    return tuple((pieces[right], pieces[wrong], n) for (right, wrong), n in ranked[:KEPT])


def _mean(
    values: NDArray[np.float64] | NDArray[np.bool_] | NDArray[np.int64] | list[float],
) -> float:
    """Average, or NaN of nothing."""
    return float(np.mean(values)) if len(values) else NAN
