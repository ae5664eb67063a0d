import numpy as np
import pytest
from scipy.optimize import linprog

from workbench.diagnostics.branch import Head
from workbench.diagnostics.reachable import LEAD, reachable


def head(weight, bias=None):
    weight = np.asarray(weight, dtype=float)
    return Head(
        weight=weight, bias=np.zeros(len(weight)) if bias is None else np.asarray(bias, float)
    )


def fits(given, target, half):
    """Ask a linear program for a hidden state within a box of half width `half`."""
    others = np.arange(len(given.weight)) != target
    found = linprog(
        np.zeros(given.weight.shape[1]),
        A_ub=(given.weight - given.weight[target])[others],
        b_ub=(given.bias[target] - given.bias - LEAD)[others],
        bounds=[(-half, half)] * given.weight.shape[1],
    )
    return found.status == 0


def test_a_row_at_the_mean_of_three_others_never_wins():
    rows = [[2.0, 0.0], [0.0, 2.0], [-2.0, -2.0]]
    inside = head([*rows, np.mean(rows, axis=0)])
    found = reachable(inside, np.arange(4), radius=50.0)
    assert found.tolist() == [True, True, True, False] and found.mean() == 0.75
    assert reachable(head([*rows, [2.0, 2.0]]), np.arange(4), radius=50.0).mean() == 1.0


@pytest.mark.parametrize(
    ("channels", "tokens", "bias", "radius"),
    [(2, 12, False, 100.0), (4, 40, False, 100.0), (4, 40, True, 3.0), (8, 200, True, 3.0)],
)
def test_between_the_boxes_inside_and_around_the_ball(channels, tokens, bias, radius):
    rng = np.random.default_rng(channels + tokens)
    given = head(rng.normal(size=(tokens, channels)), rng.normal(size=tokens) if bias else None)
    found = reachable(given, np.arange(tokens), radius=radius)
    around = np.array([fits(given, each, radius) for each in range(tokens)])
    within = np.array([fits(given, each, radius / channels**0.5) for each in range(tokens)])
    assert (within <= found).all() and (found <= around).all()
    assert 0 < found.sum() < tokens, "the case decides something"
    if not bias:
        assert (found == around).all(), "without a bias only the direction counts"


def test_a_bias_needs_a_longer_hidden_state():
    given = head(np.eye(2), [0.0, 3.0])
    first = np.array([0])
    assert not reachable(given, first, radius=2.0)[0], "ahead by at most 2 sqrt(2) < 3"
    assert reachable(given, first, radius=2.2)[0]


def test_what_has_won_is_not_searched_for():
    given = head([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [0.0, 0.0, -9.0])
    assert reachable(given, np.array([2]), radius=1.0, won=np.array([2]))[0]
    assert not reachable(given, np.array([2]), radius=1.0)[0]
    assert reachable(given, np.array([], dtype=int), radius=1.0).shape == (0,)


def test_equal_rows_cannot_both_win():
    assert not reachable(head([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.arange(2), radius=9.0).any()
