"""When each phase of a run begins and ends, from the schedule itself on a simulated clock."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from workbench.quantization import LateQuantization
from workbench.training.averages import Average, AverageConfig
from workbench.training.config import TrainConfig
from workbench.training.optimizers import OptimizerConfig
from workbench.training.schedule import Moment, Switch, active, group_settings, schedule

PEAK = 0.5, 0.9  # of the full rate: a run that stays below the first is refused, then warned of
REST = 0.1  # of the full rate, above the floor: a warmdown that ends there was cut off
KEPT = 0.1, 0.01  # share of the first state left in an average: refused, warned of
Cost = Callable[[int | None], float]
Row = tuple[str, list[bool], str, bool, bool]  # name, where it holds, told if an error, a warning


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of a run, and what is wrong with it."""

    name: str
    begins: int | None  # updates done before its first; None: never
    ends: int | None  # updates done after its last
    seconds: tuple[float, float] | None  # of training time, at both
    level: str  # ok, warning or error
    reason: str


def phases(
    config: TrainConfig,
    *,
    step_time: float,
    time_limit: float = math.inf,
    quantize_below: float = 0,
    cost: Cost = lambda passes: 1.0,
) -> list[Phase]:
    """Prove when each phase of a run begins and ends.

    The functions that training calls are called for every update of a clock that runs at an even
    pace, so nothing here can disagree with the run; a real one drifts with its pace.

    Parameters
    ----------
    config : TrainConfig
    step_time : float
        Time of an update [s]; after a switch it grows with ``tokens_per_step`` and `cost`.
    time_limit : float
        When something else ends the run, as the queue it stands in [s].
    quantize_below : float
        ``begin`` of a `LateQuantization`; 0: there is none.
    cost : callable
        What a token costs when blocks that recur take so many passes, in any unit.

    Returns
    -------
    list of Phase
        One that was not asked for never begins, and is ok.
    """
    settings = group_settings(config)
    clock = moments(config, step_time=step_time, time_limit=time_limit, cost=cost)
    kinds = [kind for kind in settings if kind == "matrix" or settings[kind] != settings["matrix"]]
    rows = [row for kind in kinds for row in _rates(kind, settings[kind], clock)]
    rows.append(_momentum(config.optimizer, len(clock) - 1))
    rows += [_switch(each, config, clock) for each in config.switches]
    factor = schedule(**settings["matrix"])
    factors = [factor(moment) for moment in clock[:-1]]
    rows.append(_average(config.average, factors))
    if quantize_below:
        rows.append(_late_quantization(quantize_below, factors))
    return [_phase(row, clock) for row in rows]


def moments(
    config: TrainConfig,
    *,
    step_time: float,
    time_limit: float = math.inf,
    cost: Cost = lambda passes: 1.0,
) -> list[Moment]:
    """Return the moment before every update, and the one after the last; see `phases`."""
    clock, elapsed, seconds = list[Moment](), 0.0, config.seconds
    for step in range(config.steps + 1):
        clock.append(Moment(step=step, steps=config.steps, elapsed=elapsed, seconds=seconds))
        if clock[-1].progress >= 1 or elapsed >= time_limit:
            break
        now = vars(config) | active(config.switches, clock[-1])
        tokens = now["tokens_per_step"] / config.tokens_per_step
        elapsed += step_time * tokens * cost(now["passes"]) / cost(config.passes)
    return clock


def _phase(row: Row, clock: list[Moment]) -> Phase:
    """Say from where to where a phase holds, and what is told where something is wrong."""
    name, holds, told, is_error, is_warning = row
    held = [step for step, is_held in enumerate(holds) if is_held]
    begins, ends = (held[0], held[-1] + 1) if held else (None, None)
    seconds = (clock[held[0]].elapsed, clock[held[-1] + 1].elapsed) if held else None
    level = "error" if is_error else "warning" if is_warning else "ok"
    reason = told if level != "ok" else "" if held else "not asked for"
    return Phase(name=name, begins=begins, ends=ends, seconds=seconds, level=level, reason=reason)


def _rates(kind: str, settings: dict[str, Any], clock: list[Moment]) -> list[Row]:
    """Judge rise, full rate and fall of one kind of parameter group."""
    rise = schedule(warmup_steps=settings["warmup_steps"])
    fall = schedule(**settings | {"warmup_steps": 0})
    rising, falling = [rise(moment) for moment in clock[:-1]], [fall(moment) for moment in clock]
    factors = [min(pair) for pair in zip(rising, falling, strict=False)]
    low = [factor < 1 for factor in falling[:-1]]
    n, top, end = len(low), max(factors[1:], default=1.0), falling[-1]
    steps = 0 if settings["warmdown_share"] else settings["warmdown_steps"]
    # Of a whole warmdown, the first update is at full rate.
    is_early = steps > 0 and (top < PEAK[1] or (falling[1] < 1 and sum(low) < steps - 1))
    is_cut = (steps or settings["warmdown_share"]) and end - settings["floor"] > REST
    told = f"{n:,} updates end at {end:.0%} of the full rate: plan the run as long as it will be."
    if not is_cut:
        told = f"the warmdown fills {sum(low):,} of {n:,} updates, {steps:,} were asked for, and "
        told += f"the rate peaks at {top:.1%}: set warmdown_steps to {n // 5:,} or less."
    unrisen = f"the rate reaches {rising[-1]:.0%} in {n:,} updates: shorten the warmup."
    is_error = end == 1 if is_cut else is_early and top < PEAK[0]
    of = "" if kind == "matrix" else f" of {kind}"
    return [
        (f"warmup{of}", [factor < 1 for factor in rising], unrisen, rising[-1] < 1, False),
        (f"full rate{of}", [factor == 1 for factor in factors], "", False, False),
        (f"warmdown{of}", low, told, is_error, bool(is_cut or is_early)),
    ]


def _momentum(config: OptimizerConfig, n: int) -> Row:
    """Judge the rise of Muon's momentum; a cycle has none."""
    momenta = [config.momentum_at(step) for step in range(n)]
    holds = [each != config.momentum and not config.momentum_period for each in momenta]
    told = f"the momentum ends at {momenta[-1]:.3f} of {config.momentum:g} after {n:,} updates: "
    told += f"set momentum_warmup_steps to {n // 2:,} or less."
    return "momentum warmup", holds, told, False, holds[-1]


def _switch(switch: Switch, config: TrainConfig, clock: list[Moment]) -> Row:
    """Judge whether a switch is reached, and changes anything."""
    name = "switch to " + ", ".join(f"{name} {value}" for name, value in switch.settings.items())
    now = [active(config.switches, moment) for moment in clock[:-1]]
    holds = [switch.settings.items() <= each.items() for each in now]
    earlier = [each for each in config.switches if each.at < switch.at]
    before = vars(config) | active(earlier, replace(clock[-1], step=clock[-1].steps))
    is_idle = all(before[name] == value for name, value in switch.settings.items())
    late = f"the last update begins with {clock[-2].progress:.1%} of the run done: lower at."
    told = "everything was so before: leave it out." if is_idle else late
    return name, holds, told, is_idle or not any(holds), False


@torch.no_grad()
def _average(config: AverageConfig, factors: list[float]) -> Row:
    """Average a 1 followed by zeros: what is left is the share of the first state."""
    probe = nn.ParameterList([torch.zeros(())])
    average, taken, n = Average(probe, config), [0], len(factors)
    for step, factor in enumerate(factors, start=1):
        probe[0].fill_(not average.n_averaged)
        average.update(probe, step=step, multiplier=factor)
        taken.append(average.n_averaged)
    name, holds = f"average {config.kind}", [before < after for before, after in pairwise(taken)]
    kept = sum(float(mean) for mean in average.mean.values())
    if config.kind == "ema":
        told = f"{kept:.0%} of the average is the first state, the horizon 1 / (1 - decay) being "
        told += f"{1 / (1 - config.decay):,.0f} of {n:,} updates: lower that to {n // 5:,}."
        return name, holds, told, kept > KEPT[0], kept > KEPT[1]
    told = f"{taken[-1]} states are taken in {n:,} updates: lower every or raise below."
    is_asked = config.kind == "swa"
    return name, holds, told, is_asked and taken[-1] == 0, is_asked and taken[-1] == 1


def _late_quantization(below: float, factors: list[float]) -> Row:
    """Judge when a `LateQuantization` begins; it is shown what an update took after it."""
    late, holds = LateQuantization(grids={}, begin=below), list[bool]()
    for factor in factors:
        holds.append(bool(late.blend))
        late.watch({"learning_rate_multiplier": factor})
    told = f"{sum(holds):,} of {len(holds):,} updates are quantised, those after the multiplier "
    told += f"fell below {below:g}: let the warmdown begin later or fall further."
    return "late quantization", holds, told, not any(holds), sum(holds) > len(holds) / 2
