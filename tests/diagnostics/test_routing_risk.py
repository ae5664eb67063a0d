import math

import numpy as np
import pytest

from workbench.diagnostics.branch import piece_order
from workbench.diagnostics.routing_risk import (
    bias_share,
    dominant_pressure,
    escape_risk,
    imbalance,
    pressure,
)

PLACE = piece_order(list("abcdefgh"))


def risk(bias, *, dominant=0, target=(4, 5), share=1.0):
    return escape_risk(
        np.array(bias, dtype=float),
        dominant=dominant,
        target=np.array(target),
        place=PLACE,
        share=share,
    )


@pytest.mark.parametrize(
    ("bias", "dominant", "expected"),
    [
        ([5, 0, 0, 0, 0, 0, 0, 0], 0, "high"),
        ([3, 5, 4, 0, 0, 0, 0, 0], 0, "high"),
        ([3, 5, 4, 3.5, 0, 0, 0, 0], 0, "low"),
        ([3, 0, 0, 0, 4, 4, 0, 0], 0, "medium"),
        ([0, 0, 0, 0, 0, 0, 0, 0], 7, "low"),
    ],
)
def test_escape_risk_by_rank_and_by_the_targets_biases(bias, dominant, expected):
    assert risk(bias, dominant=dominant) == expected


@pytest.mark.parametrize("share", [math.nan, 0.0, 0.2])
def test_a_top_bias_that_takes_nothing_is_no_risk(share):
    assert risk([5, 0, 0, 0, 0, 0, 0, 0], share=share) == "low"


def test_pressure_thresholds():
    bias = np.array([2.0, 0.68, 0.5, 0.3, -1.0, -1.0, 1.0, 0.0, np.nan])
    hidden = np.array([-1.0, 0.32, 0.5, 0.7, 3.0, 0.5, -1.0, 0.0, 1.0])
    assert pressure(bias, hidden).tolist() == [
        "output_bias",
        "output_bias",
        "mixed_bias_hidden",
        "hidden_projection",
        "hidden_projection",
        "none",
        "none",
        "none",
        "none",
    ]
    np.testing.assert_allclose(
        bias_share(bias, hidden), [1, 0.68, 0.5, 0.3, 0, 0, 1, 0, np.nan], atol=1e-12
    )


def test_dominant_pressure_by_loop():
    rng = np.random.default_rng(0)
    hidden, weight, bias = rng.normal(size=(9, 4)), rng.normal(size=(6, 4)), rng.normal(size=6)
    scores = hidden @ weight.T + bias
    target, predicted = rng.integers(0, 6, size=9), scores.argmax(axis=1)
    dominant = int(np.bincount(predicted).argmax())
    found = dominant_pressure(scores, bias, target=target, predicted=predicted, dominant=dominant)
    rows = [row for row in range(9) if predicted[row] != target[row]]
    of_hidden = [(weight[dominant] - weight[target[r]]) @ hidden[r] for r in rows]
    of_bias = [bias[dominant] - bias[target[r]] for r in rows]
    assert found.rows == len(rows)
    assert found.bias_advantage == pytest.approx(np.mean(of_bias))
    assert found.hidden_advantage == pytest.approx(np.mean(of_hidden))
    assert math.isnan(found.prior_advantage) and found.constant_share == found.bias_share
    mean = hidden.mean(axis=0)
    found = dominant_pressure(
        scores, bias, target=target, predicted=predicted, dominant=dominant, prior=weight @ mean
    )
    of_prior = np.mean([(weight[dominant] - weight[target[r]]) @ mean for r in rows])
    constant, rest = np.mean(of_bias) + of_prior, np.mean(of_hidden) - of_prior
    up, over = max(constant, 0), max(rest, 0)
    assert found.prior_advantage == pytest.approx(of_prior)
    assert found.constant_share == pytest.approx(up / (up + over))


def test_without_a_failed_row_there_is_no_pressure():
    found = dominant_pressure(
        np.eye(3), np.zeros(3), target=np.arange(3), predicted=np.arange(3), dominant=0
    )
    assert found.pressure == "none" and found.rows == 0 and math.isnan(found.bias_share)


@pytest.mark.parametrize(
    ("target", "share", "rare", "hotspot"),
    [
        ([1] * 9 + [2], 0.9, 1, True),
        ([1, 1, 2, 3], 0.5, 2, True),
        ([1, 1, 2, 2], 0.5, 0, False),
        ([1] * 4 + [2] * 3 + [3] * 3, 0.4, 0, False),
        ([1, 1, 1], 1.0, 0, False),
    ],
)
def test_imbalance(target, share, rare, hotspot):
    found = imbalance(np.array(target))
    assert (found.top_share, found.rare, found.hotspot) == (share, rare, hotspot)


@pytest.mark.parametrize(
    ("counts", "share", "hotspot"),
    [
        ([1] * 8, 0.125, False),  # qa
        ([3, 1, 1, 1, 1, 1], 0.375, False),  # paraphrases
        ([2, 2, 1, 1, 1, 1, 1, 1], 0.2, False),  # owner
        ([24, 6, 4, 2, 1, 1], 0.6316, True),  # glossary
        ([4], 1.0, False),  # unknowns: a single target is not gated
    ],
)
def test_top_shares_of_the_public_evaluation_files(counts, share, hotspot):
    found = imbalance(np.repeat(np.arange(len(counts)), counts))
    assert found.top_share == pytest.approx(share, abs=5e-5) and found.hotspot == hotspot


def test_imbalance_of_nothing_is_not_measured():
    assert math.isnan(imbalance(np.empty(0, dtype=int)).top_share)
