"""Whether hidden states of records with different targets lie apart."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist

FLOOR = 1e-6  # relative distance below which vectors count as the same
NEAR = 0.01  # relative distance up to which targets are not told apart
RATIO = 1.05  # different-target over same-target distance up to which neither are they


@dataclass(frozen=True, kw_only=True)
class Separation:
    """Distances among hidden states, in units of their root mean square norm.

    `ratio`, `same` and `margin` are NaN and the verdict is ``unjudged`` when no
    target has two records or there is only one target.
    """

    ratio: float = np.nan  # mean distance of different targets over that of the same
    same: float = np.nan
    different: float = np.nan
    different_min: float = np.nan
    centroid_min: float = np.nan  # between the nearest two centroids
    margin: float = np.nan  # mean over records: nearest other centroid - own one without the record
    verdict: str = "unjudged"  # low, apart


def separation(hidden: NDArray[np.float64], target: NDArray[np.int64]) -> Separation:
    """Measure how far hidden states of different targets lie apart.

    A record's own centroid leaves the record out, and a target with one record has no margin:
    otherwise few records would always look well separated. Whether a distance could be chance is
    asked by `workbench.diagnostics.probe`, which shuffles the targets.

    Parameters
    ----------
    hidden : (record, channel) float64
        States at the branch.
    target : (record,) int64
        Group of each record.

    Returns
    -------
    Separation
        The verdict is ``low`` when targets are hardly apart by any of: mean distance, ratio,
        nearest centroids, mean margin.
    """
    groups, number, size = np.unique(target, return_inverse=True, return_counts=True)
    if len(groups) < 2:
        return Separation()
    norm = np.sqrt((hidden**2).sum(axis=1).mean())
    scaled = hidden / norm if norm > 0 else hidden
    distance = cdist(scaled, scaled)
    pair = np.triu(np.ones(distance.shape, dtype=bool), k=1)
    alike = number[:, None] == number
    apart = distance[pair & ~alike]
    centroids = np.eye(len(groups))[number].T @ scaled / size[:, None]
    found = Separation(
        different=float(apart.mean()),
        different_min=float(apart.min()),
        centroid_min=float(pdist(centroids).min()),
    )
    if not (size > 1).any():
        return found
    same = float(distance[pair & alike].mean())
    ratio = found.different / max(same, FLOOR)
    margins = _margins(scaled, number, size=size)
    margin = float(margins.mean())
    near = min(found.different, found.centroid_min, margin) <= NEAR
    verdict = "low" if near or ratio <= RATIO else "apart"
    return replace(found, ratio=ratio, same=same, margin=margin, verdict=verdict)


def _margins(
    points: NDArray[np.float64], number: NDArray[np.int64], *, size: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the leave-one-out margin of every record whose target has another record."""
    distance = centroid_distances(points, number, size=size)[size[number] > 1]
    rows, own = np.arange(len(distance)), number[size[number] > 1]
    to_own = distance[rows, own]
    distance[rows, own] = np.inf
    margins: NDArray[np.float64] = distance.min(axis=1) - to_own
    return margins


def centroid_distances(
    points: NDArray[np.float64], number: NDArray[np.int64], *, size: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the distance of every record to every group's centroid, which leaves the record out.

    Parameters
    ----------
    points : (record, channel) float64
        Hidden states.
    number : (record,) int64
        Group of each, from 0.
    size : (group,) int64
        Records of each group.

    Returns
    -------
    (record, group) float64
        NaN to a group that has no other record.
    """
    totals = np.eye(len(size))[number].T @ points  # (group, channel)
    distance = cdist(points, totals / size[:, None])
    others = (size[number] - 1)[:, None]
    own = (totals[number] - points) / np.where(others > 0, others, np.nan)
    distance[np.arange(len(points)), number] = np.linalg.norm(points - own, axis=1)
    return distance
