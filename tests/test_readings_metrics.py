"""Lines as a table, the noise scale against its definition, and what is said of updates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_training import BATCH, planted_lines

from workbench import readings
from workbench.readings.metrics import SPREAD, WINDOW
from workbench.result import check

numbers = st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False))
nested = st.dictionaries(st.sampled_from("abc"), numbers)
rows = st.dictionaries(st.sampled_from("xyz"), st.one_of(numbers, nested))


@given(st.lists(rows, max_size=8))
def test_a_table_holds_every_number_where_it_was_logged(made):
    lines = [{"step": 3 * at, **line} for at, line in enumerate(made)]
    table = check(readings.tabled(lines))
    logged = {
        (line["step"], f"{name}.{inner}" if inner else name, float(value))
        for line in lines
        for name, given in line.items()
        for inner, value in (given if isinstance(given, dict) else {"": given}).items()
        if name != "step" and value is not None
    }
    found = {
        (int(step), name, value)
        for name in table
        for step, value in zip(*readings.logged(table, name), strict=True)
    }
    assert found == logged


def test_lines_may_come_in_parts():
    lines = planted_lines(60)
    metrics = readings.Metrics(lines[:13])
    metrics.add(lines[13:])
    assert metrics.table().identical(readings.tabled(lines))
    assert list(metrics.table(["loss", "none"])) == ["loss"]
    assert readings.tabled([]).sizes == {"step": 0}


def test_the_kind_of_a_scalar_is_the_last_word_of_its_name():
    kinds = {
        "scalars.blocks.0.attn.q_gain.3": "q_gain",
        "scalars.blocks.1.resid_mix.0.mean": "resid_mix",
        "scalars.value_residual.alpha.0": "alpha",
        "grad_norm_by_kind.matrix": None,
        "loss": None,
    }
    assert {name: readings.scalar_kind(name) for name in kinds} == kinds


def test_noise_scale_is_a_ratio_of_means_and_its_bounds_are_two_errors_away():
    lines = planted_lines(400, spread=0.3)
    scale = check(readings.noise_scale(lines))
    measured = [line for line in lines if "gradient_square" in line]
    assert scale.step.values.tolist() == [line["step"] for line in measured[4:]]
    for at in (0, 7, -1):
        known = [m for m in measured if m["step"] <= int(scale.step[at])][-WINDOW:]
        top, below = (
            np.array([m[name] for m in known]) for name in ("gradient_variance", "gradient_square")
        )
        assert float(scale.noise_scale[at]) == pytest.approx(top.mean() / below.mean())
        for bound, sign in (("low", 1), ("high", -1)):
            rest = top - float(scale[bound][at]) * below
            error = rest.std(ddof=1) / np.sqrt(len(rest))
            assert rest.mean() / error == pytest.approx(sign * SPREAD, rel=1e-6)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    held = 0
    for seed in range(200):
        last = readings.noise_scale(planted_lines(200, spread=0.5, seed=seed)).isel(step=-1)
        held += bool(last.low <= 2000 <= last.high)
    assert 180 <= held <= 198, "95 of 100, a little less for twenty measurements"


def test_a_gradient_lost_in_noise_bounds_the_scale_from_below_alone():
    last = readings.noise_scale(planted_lines(200, spread=20.0, seed=1)).isel(step=-1)
    assert np.isinf(last.high)
    said = readings.training(planted_lines(200, spread=20.0, seed=1))
    assert "noise scale at step 200 is at least" in said and "inf" not in said


def test_nothing_is_said_of_noise_that_was_not_or_hardly_measured():
    one_pass = [{k: v for k, v in x.items() if k != "gradient_square"} for x in planted_lines(200)]
    for lines in (one_pass, planted_lines(40), []):
        assert readings.noise_scale(lines).sizes["step"] == 0
        assert "noise scale" not in readings.training(lines)


def test_training_says_noise_clipping_and_idle_weights_with_their_counts():
    said = readings.training(planted_lines(200))
    assert f"({readings.noise_scale(planted_lines(200)).low[-1]:,.0f} to " in said
    assert f"against {BATCH} token a step" in said
    assert "50 of 200 updates were clipped" in said
    assert "25% of the sampled weights kept their value at step 200 (median of 20: 25%)" in said
    assert said.count(". ") == 1 and said.endswith("."), "two sentences"


def test_a_run_under_way_is_not_judged_by_its_schedule():
    said = readings.training(planted_lines(200), under_way=True)
    assert "warmdown" not in said and "learning rate" not in said
    assert ". The gradient noise scale" in said
    assert readings.training(planted_lines(1), under_way=True).startswith("After step 1 ")
