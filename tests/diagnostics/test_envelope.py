import pytest

from workbench.diagnostics import Plan, envelope, plan_checks

TABLE = [  # parameters, token/s, tokens, days of a published plan
    (300e6, 6500, 6e9, 10.7),
    (300e6, 6500, 30e9, 53.4),
    (500e6, 4100, 10e9, 28.2),
    (500e6, 4100, 50e9, 141.0),
    (1e9, 2000, 20e9, 115.7),
    (1e9, 2000, 100e9, 578.7),
]


def plan(row, **changes):
    parameters, pace, tokens, _ = row
    told = {"parameters": parameters, "tokens_per_second": pace, "tokens": tokens}
    return Plan(name="plan", **{**told, **changes})


@pytest.mark.parametrize("row", TABLE)
def test_cells_of_the_table(row):
    found = envelope(plan(row))
    assert found["days"] == pytest.approx(row[3], rel=0.01)
    assert 11.7e12 <= found["flops"] <= 12.3e12


@pytest.mark.parametrize(
    ("precision", "size"), [("mixed precision", 16e9), ("8-bit moments", 10e9)]
)
def test_state(precision, size):
    assert envelope(plan(TABLE[4], precision=precision))["state"] == size


def test_days_that_the_plan_contradicts():
    days, memory = plan_checks(plan(TABLE[1]), days=30, memory=12e9)
    assert days.level == "error"
    assert "53.4 days" in days.message and "16.8 B tokens" in days.remedy
    assert memory.level == "ok"  # 4.8 GB


def test_memory_that_cannot_hold_the_state():
    days, memory = plan_checks(plan(TABLE[4]), days=116, memory=12e9)
    assert memory.level == "error"
    assert "16.0 GB" in memory.message
    assert "8-bit moments, all bfloat16" in memory.remedy
    assert days.level == "ok"
    lean = plan(TABLE[4], precision="8-bit moments")
    assert plan_checks(lean, days=116, memory=12e9)[1].level == "ok"
