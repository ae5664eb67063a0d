"""Planted mis-schedules are seen, and their healthy twins are left alone."""

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.training import OptimizerConfig
from workbench.training.averages import AverageConfig
from workbench.training.phases import phases
from workbench.training.schedule import Moment, Switch, schedule


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The fields of a configuration that decide its phases; the baseline's by default."""

    steps: int = 20_000
    seconds: float | None = 600.0
    tokens_per_step: int = 524_288
    sequence_length: int = 1024
    passes: int | None = None
    quantize_bits: int | None = None
    warmup_steps: int = 0
    warmdown_steps: int = 1_200
    warmdown_share: float = 0.0
    decay: str = "linear"
    floor: float = 0.0
    by_group: dict = field(default_factory=dict)
    switches: tuple = ()
    average: AverageConfig = field(default_factory=AverageConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


def small(**settings):
    """Plan 1,000 updates with 200 of warmdown and 100 of momentum warmup."""
    defaults = {"steps": 1_000, "seconds": None, "warmdown_steps": 200}
    optimizer = OptimizerConfig(momentum_warmup_steps=100)
    return Plan(**{**defaults, "optimizer": optimizer, **settings})


def found(plan, *, step_time=0.1, **options):
    """Return phases by name."""
    return {phase.name: phase for phase in phases(plan, step_time=step_time, **options)}


def bad(plan, **options):
    """Return the levels of the phases with a complaint; every one gives a reason."""
    told = found(plan, **options).values()
    assert all(bool(phase.reason) for phase in told if phase.level != "ok")
    return {phase.name: phase.level for phase in told if phase.level != "ok"}


def test_a_healthy_run_is_placed_by_hand():
    plan = small(warmup_steps=50, switches=(Switch(at=0.5, sequence_length=512),))
    told = found(plan, quantize_below=0.15)
    assert {phase.level for phase in told.values()} == {"ok"}
    edges = {name: (phase.begins, phase.ends) for name, phase in told.items()}
    assert edges == {
        "warmup": (0, 49),  # the 50th update has the full rate
        "full rate": (49, 801),
        "warmdown": (801, 1_000),
        "momentum warmup": (0, 100),
        "switch to sequence_length 512": (500, 1_000),
        "average none": (None, None),
        "late quantization": (972, 1_000),  # 971 takes 29 / 200, under 0.15
    }
    assert told["warmdown"].seconds == pytest.approx((80.1, 100.0))
    assert told["average none"].reason == "not asked for" and told["average none"].seconds is None


def test_the_baseline_on_eight_gpus_is_healthy():
    told = found(Plan(), step_time=0.08334)
    assert bad(Plan(), step_time=0.08334) == {}
    begins, ends = told["warmdown"].seconds
    assert begins == pytest.approx(600 - 1_200 * 0.08334, abs=0.1)
    assert ends == pytest.approx(600, abs=0.1)


@pytest.mark.parametrize(
    ("step_time", "level"), [(0.49, None), (0.51, "warning"), (0.8, "warning"), (2.0, "error")]
)
def test_a_slow_baseline_never_has_the_full_rate(step_time, level):
    """1,200 updates of warmdown take longer than the budget of 600 s from 500 ms an update on."""
    plan = Plan(optimizer=OptimizerConfig(momentum_warmup_steps=100))
    assert bad(plan, step_time=step_time) == ({"warmdown": level} if level else {})
    if level:
        told = found(plan, step_time=step_time)["warmdown"]
        peak = (600 - step_time) / (1_200 * step_time)
        assert told.begins == 1 and f"{peak:.1%}" in told.reason


def test_a_warmdown_counts_as_cut_in_front_from_one_update_on():
    assert bad(small(steps=300, warmdown_steps=301)) == {}
    assert bad(small(steps=300, warmdown_steps=302)) == {"warmdown": "warning"}


def test_a_long_plan_stopped_by_hand_never_warms_down():
    """20,000 updates planned, about 1,200 made: every one at full rate."""
    plan = Plan(seconds=None)
    assert bad(plan, step_time=0.5, time_limit=600) == {"warmdown": "error"}
    told = found(plan, step_time=0.5, time_limit=600)
    assert (
        told["warmdown"].begins is None and "1,200 updates end at 100%" in told["warmdown"].reason
    )
    assert told["full rate"].ends == 1_200
    assert bad(Plan(steps=1_200, seconds=None, warmdown_steps=240), step_time=0.5) == {}
    assert bad(Plan(warmdown_steps=240), step_time=0.5) == {}


def test_a_warmdown_cut_off_is_told_by_where_it_ends():
    told = found(small(), time_limit=90.0)["warmdown"]
    assert told.level == "warning" and "50%" in told.reason
    assert bad(small(), time_limit=99.0) == {}


def test_no_warmdown_and_one_long_decay_are_choices():
    assert bad(small(warmdown_steps=0)) == {}
    assert bad(small(warmdown_steps=1_000, decay="cosine", warmup_steps=100)) == {}
    assert bad(small(warmdown_steps=0, warmdown_share=0.8, floor=0.1, seconds=60.0)) == {}
    assert bad(small(warmdown_share=0.8, seconds=60.0), time_limit=10.0) == {"warmdown": "error"}
    assert bad(small(floor=1.0)) == {}
    assert (
        bad(small(steps=10, warmdown_steps=10, optimizer=OptimizerConfig(momentum_period=4))) == {}
    )


def test_a_warmup_longer_than_the_run():
    told = bad(small(warmup_steps=2_000, warmdown_steps=0))
    assert told["warmup"] == "error"
    assert bad(small(warmup_steps=800, warmdown_steps=100)) == {}
    assert bad(small(warmup_steps=700, warmdown_steps=700)) == {"warmdown": "warning"}


def test_a_momentum_that_never_arrives():
    short = small(steps=300, warmdown_steps=60, optimizer=OptimizerConfig())
    assert bad(short) == {"momentum warmup": "warning"}
    assert "150" in found(short)["momentum warmup"].reason
    cycle = OptimizerConfig(momentum_period=51)
    assert found(small(optimizer=cycle))["momentum warmup"].reason == "not asked for"
    still = OptimizerConfig(momentum_warmup_steps=0)
    assert found(small(optimizer=still))["momentum warmup"].begins is None


def test_a_switch_after_the_end():
    plan = small(switches=(Switch(at=0.5, tokens_per_step=1), Switch(at=0.9, sequence_length=64)))
    assert bad(plan) == {}
    late = bad(small(switches=plan.switches[1:]), time_limit=85.0)
    assert late["switch to sequence_length 64"] == "error"


def test_a_larger_batch_takes_longer():
    plan = small(switches=(Switch(at=0.5, tokens_per_step=2 * 524_288),))
    assert found(plan)["warmdown"].seconds == pytest.approx((50 + 2 * 30.1, 150.0))


@pytest.mark.parametrize(
    ("decay", "steps", "level"),
    [
        (0.9999, 8_000, "error"),
        (0.997, 7_000, None),
        (0.997, 200, "error"),
        (0.997, 1_000, "warning"),
    ],
)
def test_an_average_too_long_for_the_run(decay, steps, level):
    average = AverageConfig(kind="ema", decay=decay)
    plan = small(steps=steps, warmdown_steps=40, average=average)
    assert bad(plan) == ({"average ema": level} if level else {})
    if level:
        assert f"{decay ** (steps - 1):.0%}" in found(plan)["average ema"].reason
    if steps == 8_000:
        assert "45%" in found(plan)["average ema"].reason


def test_an_average_of_too_few_states():
    usual = AverageConfig(kind="swa", every=10, below=0.4)
    told = found(small(average=usual))["average swa"]
    assert (told.level, told.begins, told.ends) == ("ok", 929, 1_000)
    assert bad(small(average=AverageConfig(kind="swa", every=70))) == {"average swa": "warning"}
    assert bad(small(average=usual, floor=0.5)) == {"average swa": "error"}
    assert bad(small(average=usual, warmdown_steps=0)) == {"average swa": "error"}
    # The warmup is below 0.4 too, but takes nothing.
    assert found(small(average=usual, warmup_steps=100))["average swa"].begins == 929


def test_late_quantization_never_or_always():
    assert bad(small(floor=0.2), quantize_below=0.15) == {"late quantization": "error"}
    always = bad(small(), quantize_below=1.0)
    assert always == {}  # it begins with the warmdown
    slow = bad(small(steps=9_999, seconds=10.0, warmdown_steps=1_000), quantize_below=0.15)
    assert slow["late quantization"] == "warning" and slow["warmdown"] == "error"


def test_a_group_with_a_shape_of_its_own_is_judged_too():
    plan = small(by_group={"head": {"warmdown_steps": 5_000}})
    assert bad(plan) == {"warmdown of head": "error"}
    assert "warmdown of scalar" not in found(plan)


def test_the_clock_is_the_loop_s():
    """The factors of a plain loop that ends as training does have the edges that are told."""
    plan = Plan(steps=700, seconds=40.0, warmup_steps=30, warmdown_steps=100)
    factor, made, elapsed = schedule(warmup_steps=30, warmdown_steps=100), [], 0.0
    for step in range(plan.steps):
        made.append(factor(Moment(step=step, steps=700, elapsed=elapsed, seconds=40.0)))
        elapsed += 0.07
        if elapsed >= 40.0:
            break
    told = found(plan, step_time=0.07)
    assert (told["warmup"].ends, told["warmdown"].ends) == (29, len(made))
    assert made.count(1.0) == told["full rate"].ends - told["full rate"].begins


@given(
    steps=st.integers(1, 60),
    seconds=st.none() | st.floats(0.01, 8),
    warmup_steps=st.integers(0, 70),
    warmdown_steps=st.integers(0, 70),
    warmdown_share=st.sampled_from([0.0, 0.4, 1.0]),
    floor=st.sampled_from([0.0, 0.1, 1.0]),
    kind=st.sampled_from(["none", "ema", "swa"]),
    time_limit=st.floats(0.01, 8),
)
def test_any_plan_is_judged_within_the_run(kind, time_limit, **settings):
    switches = (Switch(at=0.5, tokens_per_step=1_000_000),)
    plan = Plan(average=AverageConfig(kind=kind), switches=switches, **settings)
    random = torch.get_rng_state()
    for phase in phases(plan, step_time=0.1, time_limit=time_limit, quantize_below=0.15):
        assert phase.level in ("ok", "warning", "error") and bool(phase.seconds) == bool(phase.ends)
        assert phase.begins is None or 0 <= phase.begins < phase.ends <= settings["steps"]
    assert torch.equal(random, torch.get_rng_state())
