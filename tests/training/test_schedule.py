"""The learning-rate multiplier by hand, by simulation, and within its bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.training import multiplier


@pytest.mark.parametrize(
    ("warmdown_steps", "expected"),
    [
        (0, [1, 1, 1, 1, 1]),
        (1, [1, 1, 1, 1, 1]),
        (2, [1, 1, 1, 1, 0.5]),
        (4, [1, 1, 0.75, 0.5, 0.25]),
        (10, [0.5, 0.4, 0.3, 0.2, 0.1]),
    ],
)
def test_by_steps(warmdown_steps, expected):
    found = [multiplier(step, steps=5, warmdown_steps=warmdown_steps) for step in range(5)]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("warmup_steps", "warmdown_steps", "expected"),
    [
        (0, 0, [1, 1, 1, 1, 1, 1]),
        (1, 0, [1, 1, 1, 1, 1, 1]),
        (4, 0, [0.25, 0.5, 0.75, 1, 1, 1]),
        (3, 3, [1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3]),
        (6, 6, [1 / 6, 2 / 6, 3 / 6, 3 / 6, 2 / 6, 1 / 6]),
        (60, 0, [n / 60 for n in (1, 2, 3, 4, 5, 6)]),
    ],
)
def test_the_warmup_mirrors_the_warmdown(warmup_steps, warmdown_steps, expected):
    sizes = {"steps": 6, "warmup_steps": warmup_steps, "warmdown_steps": warmdown_steps}
    assert [multiplier(step, **sizes) for step in range(6)] == pytest.approx(expected)


def test_a_warmup_holds_under_a_time_budget():
    clock = {"steps": 99, "warmdown_steps": 10, "warmup_steps": 8, "seconds": 10.0}
    assert multiplier(3, elapsed=1.0, **clock) == pytest.approx(4 / 8)
    assert multiplier(90, elapsed=9.5, **clock) == pytest.approx(0.5 / (10 * 9.5 / 90))


def simulated(milliseconds, *, cap, warmdown_steps):
    """Run a clock and apply the published rule: a window of updates at the average pace so far."""
    elapsed, factors = 0.0, []
    for step, spent in enumerate(milliseconds):
        pace = elapsed / step if step else 0.0
        window, remaining = warmdown_steps * pace, cap - elapsed
        factors.append(1.0 if remaining > window else max(remaining, 0.0) / window)
        found = multiplier(
            step,
            steps=10**6,
            warmdown_steps=warmdown_steps,
            seconds=cap / 1e3,
            elapsed=elapsed / 1e3,
        )
        assert found == pytest.approx(factors[-1])
        elapsed += spent
        if elapsed > cap:
            break
    return factors


def test_by_time_at_an_even_pace():
    factors = simulated([10.0] * 200, cap=1000.0, warmdown_steps=40)
    assert factors[:60] == [1.0] * 60
    assert factors[60:100] == pytest.approx([1 - n / 40 for n in range(40)])
    assert factors[-1] == pytest.approx(0.0, abs=1e-9)


def test_slow_steps_begin_the_descent_at_once():
    """The warmdown is longer than the budget: only the very first update has the full rate."""
    factors = simulated([100.0] * 20, cap=1000.0, warmdown_steps=40)
    assert factors[0] == 1.0 and factors[1] == pytest.approx(900 / 4000)


@given(st.lists(st.floats(0.1, 50), min_size=2, max_size=60), st.integers(1, 80))
def test_by_time_at_any_pace(milliseconds, warmdown_steps):
    factors = simulated(milliseconds, cap=sum(milliseconds) / 2, warmdown_steps=warmdown_steps)
    assert all(0 <= factor <= 1 for factor in factors)


@given(
    step=st.integers(0, 10**5),
    steps=st.integers(1, 10**5),
    warmdown_steps=st.integers(0, 10**5),
    warmup_steps=st.integers(0, 10**5),
    seconds=st.none() | st.floats(1e-3, 1e5),
    elapsed=st.floats(0, 1e6),
)
def test_always_a_share(step, steps, warmdown_steps, warmup_steps, seconds, elapsed):
    clock = {"steps": steps, "seconds": seconds, "elapsed": elapsed}
    found = multiplier(step, warmdown_steps=warmdown_steps, warmup_steps=warmup_steps, **clock)
    assert 0.0 <= found <= 1.0
    assert found <= multiplier(step, warmdown_steps=warmdown_steps, **clock)
