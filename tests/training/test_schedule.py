"""Schedules by hand, by simulation, against torch's own, and within their bounds; switches."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.folder import InputError
from workbench.training.schedule import (
    DECAYS,
    GROUPS,
    Moment,
    Switch,
    active,
    group_settings,
    schedule,
)

COMMON = {
    "warmup_steps": 0,
    "warmdown_steps": 4,
    "warmdown_share": 0.0,
    "decay": "linear",
    "floor": 0.0,
}


def factors(steps, **settings):
    """Run a schedule by steps."""
    factor = schedule(**settings)
    return [factor(Moment(step=step, steps=steps)) for step in range(steps)]


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
    assert factors(5, warmdown_steps=warmdown_steps) == pytest.approx(expected)


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
    found = factors(6, warmup_steps=warmup_steps, warmdown_steps=warmdown_steps)
    assert found == pytest.approx(expected)


def test_a_cosine_over_the_whole_run_is_torch_s():
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30, eta_min=0.1)
    expected = []
    for _ in range(30):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    found = factors(30, warmdown_steps=30, decay="cosine", floor=0.1)
    assert found == pytest.approx(expected)


def test_one_minus_sqrt_by_hand():
    found = factors(20, warmdown_steps=16, decay="one_minus_sqrt", floor=0.2)
    expected = [1.0] * 4 + [0.2 + 0.8 * (1 - math.sqrt(n / 16)) for n in range(16)]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
def test_joins_are_continuous_and_the_decay_falls(decay, floor):
    steps, length = 10_000, 4_000
    factor = schedule(warmup_steps=1_000, warmdown_steps=length, decay=decay, floor=floor)
    found = [factor(Moment(step=step, steps=steps)) for step in range(steps + 1)]
    assert set(found[999:6_001]) == {1.0}
    # The steepest is one_minus_sqrt at its start, where it falls as sqrt(1 / length).
    jumps = [abs(after - before) for before, after in zip(found, found[1:], strict=False)]
    assert max(jumps) <= math.sqrt(1 / length) + 1e-12
    falling = found[6_000:]
    assert all(after <= before for before, after in zip(falling, falling[1:], strict=False))
    assert found[-1] == pytest.approx(floor)


@pytest.mark.parametrize("decay", DECAYS)
def test_a_branch_off_the_plateau_decays_as_a_run_that_was_planned_so(decay):
    """A long run's plateau, then 50 updates of warmdown: the factors of a run of 250 updates."""
    settings = {"warmup_steps": 20, "warmdown_steps": 50, "decay": decay, "floor": 0.05}
    factor = schedule(**settings)
    plateau = [factor(Moment(step=step, steps=1_000)) for step in range(200)]
    branched = [factor(Moment(step=step, steps=250)) for step in range(200, 250)]
    assert plateau + branched == factors(250, **settings)


def test_a_warmup_holds_under_a_time_budget():
    factor = schedule(warmdown_steps=10, warmup_steps=8)
    moment = Moment(step=3, steps=99, seconds=10.0, elapsed=1.0)
    assert factor(moment) == pytest.approx(4 / 8)
    assert factor(replace(moment, step=90, elapsed=9.5)) == pytest.approx(0.5 / (10 * 9.5 / 90))


def simulated(milliseconds, *, cap, warmdown_steps):
    """Run a clock and apply the published rule: a window of updates at the average pace so far."""
    elapsed, expected, factor = 0.0, [], schedule(warmdown_steps=warmdown_steps)
    for step, spent in enumerate(milliseconds):
        pace = elapsed / step if step else 0.0
        window, remaining = warmdown_steps * pace, cap - elapsed
        expected.append(1.0 if remaining > window else max(remaining, 0.0) / window)
        moment = Moment(step=step, steps=10**6, seconds=cap / 1e3, elapsed=elapsed / 1e3)
        assert factor(moment) == pytest.approx(expected[-1])
        elapsed += spent
        if elapsed > cap:
            break
    return expected


def test_by_time_at_an_even_pace():
    found = simulated([10.0] * 200, cap=1000.0, warmdown_steps=40)
    assert found[:60] == [1.0] * 60
    assert found[60:100] == pytest.approx([1 - n / 40 for n in range(40)])
    assert found[-1] == pytest.approx(0.0, abs=1e-9)


def test_slow_steps_begin_the_descent_at_once():
    """The warmdown is longer than the budget: only the very first update has the full rate."""
    found = simulated([100.0] * 20, cap=1000.0, warmdown_steps=40)
    assert found[0] == 1.0 and found[1] == pytest.approx(900 / 4000)


@given(st.lists(st.floats(0.1, 50), min_size=2, max_size=60), st.integers(1, 80))
def test_by_time_at_any_pace(milliseconds, warmdown_steps):
    found = simulated(milliseconds, cap=sum(milliseconds) / 2, warmdown_steps=warmdown_steps)
    assert all(0 <= factor <= 1 for factor in found)


def test_a_share_of_the_run_by_time_and_by_steps():
    """The last 80 % fall to a tenth, whatever the pace: 20 % done is full, 60 % halfway."""
    factor = schedule(warmdown_share=0.8, floor=0.1)
    by_time = [Moment(step=7, steps=999, elapsed=at, seconds=10.0) for at in (1.9, 6.0, 10.0, 11.0)]
    assert [factor(moment) for moment in by_time] == pytest.approx([1.0, 0.55, 0.1, 0.1])
    by_steps = [Moment(step=step, steps=100) for step in (20, 60, 100)]
    assert [factor(moment) for moment in by_steps] == pytest.approx([1.0, 0.55, 0.1])


@given(
    step=st.integers(0, 10**5),
    steps=st.integers(1, 10**5),
    warmdown_steps=st.integers(0, 10**5),
    warmdown_share=st.sampled_from([0.0, 1e-3, 0.3, 1.0]),
    warmup_steps=st.integers(0, 10**5),
    seconds=st.none() | st.floats(1e-3, 1e5),
    elapsed=st.floats(0, 1e6),
    decay=st.sampled_from(list(DECAYS)),
    floor=st.floats(0, 1),
)
def test_always_a_share(step, steps, seconds, elapsed, warmup_steps, floor, **settings):
    moment = Moment(step=step, steps=steps, seconds=seconds, elapsed=elapsed)
    found = schedule(warmup_steps=warmup_steps, floor=floor, **settings)(moment)
    assert 0.0 <= found <= 1.0 + 1e-12
    unwarmed = schedule(floor=floor, **settings)(moment)
    assert found <= unwarmed and unwarmed >= floor - 1e-12
    assert schedule(warmup_steps=warmup_steps, floor=floor, **settings)(moment) == found


@pytest.mark.parametrize(
    "settings", [{"decay": "cosin"}, {"floor": 1.5}, {"warmdown_share": -0.1}, {"floor": math.nan}]
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(InputError):
        schedule(**settings)


def test_the_nearest_shape_is_named():
    with pytest.raises(InputError, match="Nearest: cosine"):
        schedule(decay="cosin")


def test_a_group_keeps_its_own_shape():
    config = SimpleNamespace(by_group={"embedding": {"floor": 0.5}}, **COMMON)
    found = group_settings(config)
    assert tuple(found) == GROUPS
    assert found["embedding"] == COMMON | {"floor": 0.5}
    assert all(found[kind] == COMMON for kind in GROUPS if kind != "embedding")
    factor = schedule(**found["embedding"])
    assert factor(Moment(step=8, steps=10)) == pytest.approx(0.75)


@pytest.mark.parametrize("own", [{"embeding": {"floor": 0.5}}, {"embedding": {"flor": 0.5}}])
def test_an_unknown_group_or_setting_is_refused(own):
    with pytest.raises(InputError, match=r"Nearest: (embedding|floor)"):
        group_settings(SimpleNamespace(by_group=own, **COMMON))


def test_progress_is_whichever_is_further():
    assert Moment(step=3, steps=10).progress == 0.3
    assert Moment(step=3, steps=10, elapsed=5.0, seconds=10.0).progress == 0.5
    assert Moment(step=8, steps=10, elapsed=5.0, seconds=10.0).progress == 0.8


def test_switches_hold_from_their_share_on():
    longer = Switch(at=0.5, sequence_length=512)
    more = Switch(at=0.75, sequence_length=1024, tokens_per_step=8192)
    found = [active([more, longer], Moment(step=step, steps=8)) for step in range(8)]
    assert found[:4] == [{}] * 4
    assert found[4:6] == [{"sequence_length": 512}] * 2
    late = {"sequence_length": 1024, "tokens_per_step": 8192}
    assert found[6:] == [late] * 2
    by_time = Moment(step=1, steps=8, elapsed=5.0, seconds=10.0)
    assert active([longer, more], by_time) == {"sequence_length": 512}


@pytest.mark.parametrize(
    "settings",
    [
        {"at": 0.0, "sequence_length": 64},
        {"at": 1.0, "sequence_length": 64},
        {"at": math.nan, "sequence_length": 64},
        {"at": 0.5},
        {"at": 0.5, "sequence_length": 0},
        {"at": 0.5, "tokens_per_step": -1},
    ],
)
def test_a_bad_switch_is_refused(settings):
    with pytest.raises(InputError, match="switches"):
        Switch(**settings)
