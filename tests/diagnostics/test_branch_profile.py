import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from workbench.diagnostics.branch_profile import branch_profile

PIECES = ["a", "b", "c", "d", "n"]


def predicting(*predicted: int) -> np.ndarray:
    return np.eye(5)[list(predicted)] * 3.0


def test_a_permutation_covers_everything_and_owns_nothing():
    found = branch_profile(predicting(1, 0, 3, 2), np.arange(4), pieces=PIECES)
    assert (found.target_coverage, found.owned_coverage, found.accuracy) == (1.0, 0.0, 0.0)
    assert (found.target_unique, found.predicted_unique, found.collapsed) == (4, 4, False)


def test_a_constant_prediction_is_collapsed():
    found = branch_profile(predicting(4, 4, 4, 4), np.arange(4), pieces=PIECES)
    assert found.collapsed and found.target_coverage == 0.0 and found.dominant_rate == 1.0
    assert found.dominant_token == "n" and found.dominant == 4 and found.dominant_excess == 1.0
    assert found.missing == (("a", 1), ("b", 1), ("c", 1), ("d", 1))


def test_one_record_or_one_target_is_not_collapsed():
    assert not branch_profile(predicting(4), np.array([0]), pieces=PIECES).collapsed
    assert not branch_profile(predicting(4, 4), np.array([0, 0]), pieces=PIECES).collapsed


def test_six_records_by_hand():
    odds = np.array(  # weights of a row; probabilities are these over the row's sum
        [
            [5, 1, 1, 1, 2],
            [5, 2, 1, 1, 1],
            [1, 5, 2, 1, 1],
            [1, 1, 1, 2, 5],
            [4, 3, 1, 1, 1],
            [2, 2, 2, 2, 2],
        ]
    )
    target = np.array([0, 1, 1, 3, 2, 2])
    found = branch_profile(np.log(odds), target, pieces=PIECES)
    # predictions: a a b n a a (the last by text); targets: a b b d c c
    assert found.count == 6
    assert found.accuracy == pytest.approx(2 / 6)
    assert found.macro_recall == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert found.target_coverage == found.owned_coverage == pytest.approx(2 / 4)
    # ranks: 1; 2; 1; 2; c of (4 3 1 1 1) is the first of three equals: 3; c of five equals: 3
    assert found.target_rank == pytest.approx((1 + 2 + 1 + 2 + 3 + 3) / 6)
    assert (found.top3, found.top5) == (1.0, 1.0)
    assert found.target_probability == pytest.approx(np.mean([0.5, 0.2, 0.5, 0.2, 0.1, 0.2]))
    assert found.target_margin == pytest.approx(np.mean([0.3, -0.3, 0.3, -0.3, -0.3, 0.0]))
    assert found.dominant_rate == pytest.approx(4 / 6)
    assert found.dominant_excess == pytest.approx(3 / 6)
    assert found.missing == (("c", 2), ("d", 1))


def test_no_records_measure_nothing():
    found = branch_profile(np.empty((0, 5)), np.empty(0, dtype=np.int64), pieces=PIECES)
    rates = (found.accuracy, found.target_coverage, found.owned_coverage, found.dominant_rate)
    assert all(math.isnan(each) for each in rates) and not found.collapsed and found.count == 0


@given(
    arrays(np.int64, (7, 5), elements=st.integers(-2, 2)),
    arrays(np.int64, 7, elements=st.integers(0, 4)),
)
def test_any_profile_by_a_loop(whole, target):
    logits = whole.astype(np.float64)
    found = branch_profile(logits, target, pieces=PIECES)
    ranked = [sorted(range(5), key=lambda v: (-row[v], PIECES[v], v)) for row in logits]
    predicted = [order[0] for order in ranked]
    ranks = [order.index(t) + 1 for order, t in zip(ranked, target, strict=True)]
    assert found.accuracy == pytest.approx(np.mean([r == 1 for r in ranks]))
    assert found.target_rank == pytest.approx(np.mean(ranks))
    wanted = set(target.tolist())
    owned = {t for t, p in zip(target.tolist(), predicted, strict=True) if t == p}
    assert found.target_coverage == pytest.approx(len(wanted & set(predicted)) / len(wanted))
    assert found.owned_coverage == pytest.approx(len(owned) / len(wanted))
    assert found.owned_coverage <= found.target_coverage
    assert found.macro_recall <= found.owned_coverage + 1e-12
    assert found.dominant_rate == max(predicted.count(p) for p in predicted) / 7
    exp = np.exp(logits)
    probability = exp / exp.sum(axis=1, keepdims=True)
    margin = [row[t] - np.delete(row, t).max() for row, t in zip(probability, target, strict=True)]
    assert found.target_margin == pytest.approx(np.mean(margin))
