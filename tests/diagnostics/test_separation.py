import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from workbench.diagnostics.separation import centroid_distances, separation

LABELS = np.repeat([3, 8, 5], 10)


def blobs(distance, *, seed=0, scale=1.0):
    """Three unit-variance blobs whose centres are `distance` apart."""
    rng = np.random.default_rng(seed)
    centres = distance / np.sqrt(2) * np.eye(3, 8)
    return scale * (np.repeat(centres, 10, axis=0) + rng.normal(size=(30, 8)))


def test_blobs_far_apart_are_separated():
    found = separation(blobs(20.0), LABELS)
    assert found.verdict == "apart" and found.ratio > 3 and found.margin > 0.5


def test_identical_vectors_are_not():
    found = separation(np.ones((30, 8)), LABELS)
    assert found.verdict == "low" and found.ratio == 0.0 and found.margin < 1e-12


def test_nearly_identical_vectors_in_float32_are_not():
    rng = np.random.default_rng(0)
    noisy = (1.0 + 1e-7 * rng.normal(size=(30, 8))).astype(np.float32).astype(np.float64)
    assert separation(noisy, LABELS).verdict == "low"


def test_shuffled_targets_have_no_margin():
    shuffled = np.random.default_rng(3).permutation(LABELS)
    found = separation(blobs(20.0), shuffled)
    assert found.verdict == "low" and found.margin < 0.01
    assert found.ratio == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_nothing_depends_on_the_scale(scale):
    plain, scaled = separation(blobs(6.0), LABELS), separation(blobs(6.0, scale=scale), LABELS)
    for name in ("ratio", "same", "different", "centroid_min", "margin"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name), rel=1e-9)
    assert plain.verdict == scaled.verdict


def test_distances_and_margins_by_loop():
    hidden = blobs(4.0)
    found = separation(hidden, LABELS)
    scaled = hidden / np.sqrt((hidden**2).sum(axis=1).mean())
    distance = cdist(scaled, scaled)
    same, different, margins = [], [], []
    for row, label in enumerate(LABELS):
        mine = np.flatnonzero(LABELS == label)
        mine = mine[mine != row]
        to_own = np.linalg.norm(scaled[row] - scaled[mine].mean(axis=0))
        others = [other for other in set(LABELS.tolist()) if other != label]
        to_other = min(
            np.linalg.norm(scaled[row] - scaled[other == LABELS].mean(axis=0)) for other in others
        )
        margins.append(to_other - to_own)
        for column in range(row + 1, len(LABELS)):
            (same if LABELS[column] == label else different).append(distance[row, column])
    assert found.same == pytest.approx(np.mean(same))
    assert found.different == pytest.approx(np.mean(different))
    assert found.different_min == pytest.approx(min(different))
    assert found.ratio == pytest.approx(np.mean(different) / np.mean(same))
    assert found.margin == pytest.approx(np.mean(margins))
    groups, number, size = np.unique(LABELS, return_inverse=True, return_counts=True)
    to_all = centroid_distances(scaled, number, size=size)
    assert to_all[0, 0] == pytest.approx(np.linalg.norm(scaled[0] - scaled[1:10].mean(axis=0)))
    assert to_all[0, 1] == pytest.approx(
        np.linalg.norm(scaled[0] - scaled[LABELS == groups[1]].mean(axis=0))
    )


def test_one_record_a_target_cannot_be_judged():
    found = separation(np.eye(4), np.arange(4))
    assert found.verdict == "unjudged" and math.isnan(found.ratio) and math.isnan(found.margin)
    assert found.different == pytest.approx(np.sqrt(2))


def test_a_single_record_beside_others_is_left_out_of_the_margin():
    hidden = np.concatenate([blobs(20.0), 100 * np.ones((1, 8))])
    found = separation(hidden, np.append(LABELS, 99))
    assert found.verdict == "apart" and math.isfinite(found.margin)


@pytest.mark.parametrize("target", [np.zeros(5, dtype=int), np.empty(0, dtype=int)])
def test_fewer_than_two_targets_cannot_be_judged(target):
    found = separation(np.ones((len(target), 3)), target)
    assert found.verdict == "unjudged" and math.isnan(found.different)


def test_the_same_call_gives_the_same_answer():
    assert separation(blobs(3.0), LABELS) == separation(blobs(3.0), LABELS)
