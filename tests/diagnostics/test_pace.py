from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.diagnostics import pace, step_seconds, translated
from workbench.model import preset
from workbench.training import TrainConfig, train_config

PASS, UPDATE = 0.05, 0.2  # s, of the machine that is played


@pytest.fixture
def machine(monkeypatch):
    """Play a machine on which a pass and an update take their time, and the first step longer."""
    asked = []

    def train(model, data, schedule, run, *, watch):
        _, passes = pace.pass_shape(schedule)
        asked.append(passes)
        seconds = 5.0
        for _ in range(100_000):
            watch({"seconds": seconds})
            seconds += passes * PASS + UPDATE

    monkeypatch.setattr(pace, "train", train)
    monkeypatch.setattr(pace, "new_network", lambda config, seed: SimpleNamespace())
    return asked


@pytest.mark.parametrize("passes", [1, 2, 5, 300])
def test_time_follows_from_shorter_steps(machine, passes):
    schedule = TrainConfig(sequence_length=64, tokens_per_pass=256, tokens_per_step=passes * 256)
    found = step_seconds(preset("demo"), None, schedule, seconds=2.0)
    assert found == pytest.approx(passes * PASS + UPDATE)
    assert max(machine) <= 3  # three steps of three passes fit, not those of three hundred


def test_real_steps_are_timed_and_leave_nothing(tiny_data):
    config = preset("demo", n_layer=1, d_model=16, vocab_size=257)
    schedule = train_config(
        optimizer={},
        device="cpu",
        sequence_length=16,
        tokens_per_step=64,
        tokens_per_pass=32,
        micro_batches=2,
    )
    short = step_seconds(config, tiny_data, schedule, seconds=0.05)
    assert 0 < short < 10


@given(
    steps=st.integers(1, 10_000),
    cap=st.none() | st.floats(1, 1e5),
    here=st.floats(1e-3, 10),
    there=st.floats(1e-3, 10),
)
def test_translation_and_back(steps, cap, here, there):
    schedule = TrainConfig(steps=steps, seconds=cap, warmdown_steps=60)
    other = translated(schedule, step_seconds=here, other_step_seconds=there)
    assert other.seconds == pytest.approx(other.steps * there)
    assert other.steps <= steps
    back = translated(other, step_seconds=there, other_step_seconds=here)
    assert back == replace(other, seconds=other.steps * here)
    assert back.seconds <= max(here, (cap or float("inf")) + here)


def test_slower_machine_needs_as_many_times_the_seconds():
    schedule = TrainConfig(steps=20_000, seconds=600, warmdown_steps=1200)
    other = translated(schedule, step_seconds=0.0436, other_step_seconds=0.421)
    assert other.steps == 13761
    assert other.seconds == pytest.approx(600 * 0.421 / 0.0436, rel=1e-4)
    assert other.warmdown_steps == 1200
