"""How fast a configuration trains here, from a few real steps, and what that buys elsewhere."""

import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.benchmark import Timer

from workbench.folder import RunFolder
from workbench.model import ModelConfig, new_network
from workbench.text import Data
from workbench.training import TrainConfig, pass_shape, train

WARMUP = 1  # steps that are not timed: they load what later ones use
FEWEST = 3  # steps that are


class _Enough(Exception):
    """Enough steps were timed."""


def step_seconds(
    config: ModelConfig, data: Data, schedule: TrainConfig, *, seconds: float = 1.5
) -> float:
    """Time a few steps of real training, in a scratch folder and at almost no learning rate.

    A step of many passes is timed by two shorter ones, of which the rest follows.

    Parameters
    ----------
    config : ModelConfig
    data : Data
    schedule : TrainConfig
    seconds : float
        About how long to time them for; longer where a pass takes so long.

    Returns
    -------
    float
        Time of a step [s], without validation and saving.
    """
    rows, passes = pass_shape(schedule)
    tokens = rows * schedule.sequence_length
    one = _paced(config, data, replace(schedule, tokens_per_step=tokens), seconds=seconds / 4)
    if passes == 1:
        return one
    count = min(passes, max(2, int(seconds / FEWEST / one)))
    several = replace(schedule, tokens_per_step=count * tokens)
    return one + (_paced(config, data, several, seconds=seconds) - one) * (passes - 1) / (count - 1)


def _paced(config: ModelConfig, data: Data, schedule: TrainConfig, *, seconds: float) -> float:
    """Return the mean time of a step, of the schedule as it is at its beginning [s]."""
    lines: list[Any] = []

    def watch(line: Any) -> None:
        lines.append(line)
        timed = len(lines) - WARMUP
        if timed >= FEWEST and line["seconds"] - lines[WARMUP - 1]["seconds"] > seconds:
            raise _Enough

    brief = replace(
        schedule,
        steps=1_000_000,
        seconds=None,
        micro_batches=1,
        processes=1,
        learning_rate_factor=1e-9,
        validate_every=0,
        checkpoints=0,
    )
    with tempfile.TemporaryDirectory() as scratch, suppress(_Enough):
        train(new_network(config, seed=0), data, brief, RunFolder(Path(scratch)), watch=watch)
    return float(lines[-1]["seconds"] - lines[WARMUP - 1]["seconds"]) / (len(lines) - WARMUP)


def arithmetic_rate(schedule: TrainConfig) -> float:
    """Return what a large matrix product reaches on this device [flop/s], to compare with."""
    size = 4096 if schedule.device.startswith("cuda") else 512
    square = torch.ones(size, size, device=schedule.device, dtype=getattr(torch, schedule.dtype))
    timer = Timer("x @ x", globals={"x": square}, num_threads=torch.get_num_threads())
    return float(2 * size**3 / timer.blocked_autorange(min_run_time=0.2).median)


def translated(
    schedule: TrainConfig, *, step_seconds: float, other_step_seconds: float
) -> TrainConfig:
    """Translate a budget: the same tokens by the same schedule, on hardware of another speed.

    The reverse is to swap the two times.

    Parameters
    ----------
    schedule : TrainConfig
        Of a run here; its `seconds`, if any, may end it before its `steps`.
    step_seconds, other_step_seconds : float
        Time of a step here and there [s]. Where only effective FLOP/s are known: FLOPs of a token,
        times the tokens of a step, over those.

    Returns
    -------
    TrainConfig
        What to run there: the steps that are reached here, in the seconds that they take there;
        the warmdown, which is counted in steps, is the same.

    Examples
    --------
    >>> here = TrainConfig(steps=20_000, seconds=600, warmdown_steps=1200)
    >>> there = translated(here, step_seconds=0.05, other_step_seconds=0.5)
    >>> there.steps, there.seconds, there.warmdown_steps
    (12000, 6000.0, 1200)
    """
    steps = schedule.steps
    if schedule.seconds is not None:
        steps = min(steps, max(1, round(schedule.seconds / step_seconds)))
    return replace(schedule, steps=steps, seconds=steps * other_step_seconds)
