"""The progress bar: what it shows, and that it ends."""

import pytest

from workbench.execution import progress


def line(step, **more):
    return {"step": step, "tokens": 1000 * step, "seconds": 0.5 * step, "loss": 4.0 / step, **more}


def test_the_bar_counts_steps_and_shows_the_latest(capsys):
    watch = progress(3, description="tiny")
    watch(line(1))
    watch(line(2, validation_bits_per_byte=2.5))
    watch(line(3))
    out, shown = capsys.readouterr()
    assert out == "", "standard output is for results"
    assert shown.startswith("\rtiny:") and "3/3" in shown and shown.endswith("\n")
    assert "loss 1.333 nat/token, bpb 2.5000, 2,000 token/s" in shown


def test_no_bits_per_byte_before_it_is_measured(capsys):
    watch = progress(2)
    watch(line(1))
    watch(line(2))
    assert "bpb" not in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [0.0, 1e-12])
def test_a_first_step_in_no_time_is_shown(seconds, capsys):
    progress(1)({**line(1), "seconds": seconds})
    assert "1/1" in capsys.readouterr().err
