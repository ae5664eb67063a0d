"""Whether hidden states of records with different targets lie apart."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FLOOR = 1e-6  # relative distance below which vectors count as the same
NEAR = 0.01  # relative distance up to which targets are not told apart
RATIO = 1.05  # different-target over same-target distance up to which neither are they
NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class Separation:
    """Distances among hidden states, in units of their root mean square norm.

    `ratio`, `margin`, `silhouette`, `p_value` are NaN and the verdict is ``unjudged`` when no
    target has two records or there is only one target.
    """

    ratio: float  # mean distance of different targets over that of the same
    same: float
    different: float
    different_min: float
    centroid_min: float  # between the nearest two centroids
    margin: float  # mean over records: nearest other centroid - own centroid without the record
    poorly_separated: float  # share of records with a margin up to NEAR
    silhouette: float
    p_value: float  # of margin when targets are dealt at random
    verdict: str  # low, apart, unjudged


def separation(
    hidden: NDArray[np.float64],
    target: NDArray[np.int64],
    *,
    n_permutation: int = 99,
    seed: int = 0,
) -> Separation:
    """Measure how far hidden states of different targets lie apart.

    A record's own centroid leaves the record out, and a target with one record has no margin:
    otherwise few records would always look well separated.

    Parameters
    ----------
    hidden : (record, channel) float64
        States at the branch.
    target : (record,) int64
        Group of each record.
    n_permutation : int
        Random dealings of the targets behind `p_value`; 0 leaves it NaN.
    seed : int
        Of the dealings.

    Returns
    -------
    Separation
        The verdict is ``low`` when targets are hardly apart by any of: mean distance, ratio,
        nearest centroids, mean margin.

    References
    ----------
    Rousseeuw, Silhouettes, 1987, https://doi.org/10.1016/0377-0427(87)90125-7
    """
    groups, number = np.unique(target, return_inverse=True)
    size = np.bincount(number, minlength=len(groups))
    if len(groups) < 2:
        return _unjudged()
    norm = np.sqrt((hidden**2).sum(axis=1).mean())
    scaled = hidden / norm if norm > 0 else hidden
    distance = _distances(scaled, scaled)
    np.fill_diagonal(distance, 0.0)
    pair = np.triu(np.ones(distance.shape, dtype=bool), k=1)
    alike = number[:, None] == number
    apart = distance[pair & ~alike]
    centroids = _member(number, len(groups)).T @ scaled / size[:, None]
    between = _distances(centroids, centroids)[np.triu_indices(len(groups), k=1)]
    found = _unjudged(
        different=float(apart.mean()),
        different_min=float(apart.min()),
        centroid_min=float(between.min()),
    )
    if not (size > 1).any():
        return found
    same = float(distance[pair & alike].mean())
    ratio = found.different / max(same, FLOOR)
    margins = _margins(scaled, number, n_group=len(groups))
    margin = float(margins.mean())
    near = min(found.different, found.centroid_min, margin) <= NEAR
    return Separation(
        ratio=ratio,
        same=same,
        different=found.different,
        different_min=found.different_min,
        centroid_min=found.centroid_min,
        margin=margin,
        poorly_separated=float((margins <= NEAR).mean()),
        silhouette=_silhouette(distance, number, size=size),
        p_value=_p_value(scaled, number, margin=margin, n_permutation=n_permutation, seed=seed),
        verdict="low" if near or ratio <= RATIO else "apart",
    )


def _unjudged(
    *, different: float = NAN, different_min: float = NAN, centroid_min: float = NAN
) -> Separation:
    """Say what is known when no target has two records."""
    return Separation(
        ratio=NAN,
        same=NAN,
        different=different,
        different_min=different_min,
        centroid_min=centroid_min,
        margin=NAN,
        poorly_separated=NAN,
        silhouette=NAN,
        p_value=NAN,
        verdict="unjudged",
    )


def _member(number: NDArray[np.int64], n_group: int) -> NDArray[np.float64]:
    """Return the (record, group) matrix of membership."""
    member: NDArray[np.float64] = np.eye(n_group)[number]
    return member


def _distances(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Euclidean distances, (point, other), without an array of all differences."""
    square = (points**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)
    distance: NDArray[np.float64] = np.sqrt(np.maximum(square - 2.0 * points @ others.T, 0.0))
    return distance


def _margins(
    points: NDArray[np.float64], number: NDArray[np.int64], *, n_group: int
) -> NDArray[np.float64]:
    """Return the leave-one-out margin of every record whose target has another record."""
    member = _member(number, n_group)
    size = member.sum(axis=0)
    totals = member.T @ points  # (group, channel)
    judged = size[number] > 1
    own = (totals[number] - points)[judged] / (size[number][judged] - 1)[:, None]
    to_own = np.linalg.norm(points[judged] - own, axis=1)
    centroids = totals / size[:, None]
    to_all = _distances(points[judged], centroids)
    to_all[member[judged] > 0] = np.inf
    margins: NDArray[np.float64] = to_all.min(axis=1) - to_own
    return margins


def _silhouette(
    distance: NDArray[np.float64], number: NDArray[np.int64], *, size: NDArray[np.int64]
) -> float:
    """Average the silhouette of the records whose target has another record."""
    totals = distance @ _member(number, len(size))  # (record, group)
    judged = size[number] > 1
    rows = np.arange(len(number))
    inner = totals[rows, number][judged] / (size[number][judged] - 1)
    means = totals / size
    means[rows, number] = np.inf
    outer = means.min(axis=1)[judged]
    return float(((outer - inner) / np.maximum(np.maximum(outer, inner), FLOOR)).mean())


def _p_value(
    points: NDArray[np.float64],
    number: NDArray[np.int64],
    *,
    margin: float,
    n_permutation: int,
    seed: int,
) -> float:
    """Return the share of random dealings that separate as well, the real one included."""
    if not n_permutation:
        return NAN
    rng = np.random.default_rng(seed)
    n_group = int(number.max()) + 1
    dealt = [
        _margins(points, rng.permutation(number), n_group=n_group).mean()
        for _ in range(n_permutation)
    ]
    return float((1 + np.sum(np.array(dealt) >= margin - 1e-12)) / (1 + n_permutation))
