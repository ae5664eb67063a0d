"""What a training will cost, before it begins: forecasts of every part, joined and judged."""

import math
import os
from collections.abc import Mapping
from dataclasses import fields
from functools import cache, partial
from typing import Any

import numpy as np
import torch
import xarray as xr

from workbench.diagnostics.alive import Make, Recipe, alive
from workbench.diagnostics.checks import Check, check_table
from workbench.diagnostics.pace import arithmetic_rate, step_seconds
from workbench.folder import InputError, find_run
from workbench.foreign import preflight_tokenizer
from workbench.model import (
    ModelConfig,
    cache_bytes,
    flops_per_token,
    parameters_by_part,
    preset,
    starting_point,
)
from workbench.quantization import gaussian_bytes
from workbench.result import check, variable
from workbench.text import Data, audit_bytes, open_data
from workbench.training import (
    PEAKS,
    Phase,
    TrainConfig,
    check_passes,
    judge_start,
    phases,
    train_config,
    training_bytes,
)
from workbench.training.phases import Cost, moments
from workbench.training.schedule import active

BITS = (4, 5, 6, 8)
CAP = 16_000_000  # bytes of an artifact: decimal megabytes, not binary ones
EPOCHS = 4.0  # readings of a text beyond which it teaches much less [1]_


def preflight(
    config: ModelConfig,
    data: Data,
    schedule: TrainConfig,
    *,
    seconds: float = 1.5,
    make: Make | None = None,
) -> dict[str, xr.Dataset]:
    """Forecast parameters, memory, bytes and time of a training, and judge them.

    Parameters
    ----------
    config : ModelConfig
    data : Data
    schedule : TrainConfig
    seconds : float
        How long to time real steps for; 0: time is not forecast.
    make : callable, optional
        Makes the network that will be trained, of a configuration; every setting and parameter is
        then shown to do something, see `alive`.

    Returns
    -------
    dict of str to Dataset
        ``parameters`` (by ``part``), ``memory`` of training (by ``part``),
        ``deployment`` (by ``setting``, the bits of a weight), ``pace`` (of training; absent without
        calibration), ``phases`` (of the schedule, by ``phase``; absent where a time budget needs
        the pace) and ``checks`` (by ``check``).

    Raises
    ------
    InputError
        If the tokenizer has more ids than the model has rows, or more passes are asked for.

    References
    ----------
    .. [1] Muennighoff et al., Scaling Data-Constrained Language Models, 2023,
       https://arxiv.org/abs/2305.16264
    """
    preflight_tokenizer(data.tokenizer, config)
    check_passes(config, schedule)
    parts = parameters_by_part(config)

    @cache  # it is asked for at every update
    def cost(passes: int | None) -> float:
        length = schedule.sequence_length
        return flops_per_token(config, sequence_length=length, passes=passes)

    found = {
        "parameters": _labelled(
            {"count": ("part", list(parts.values()), "parameters", "1")}, part=list(parts)
        ),
        "memory": _memory(config, data, schedule),
        "deployment": _deployment(config, schedule),
    }
    if seconds:
        found["pace"] = _pace(config, data, schedule, seconds, cost)
    faults = [
        Check(
            name=each.code,
            value=1,
            threshold=0,
            message=each.message,
            remedy=each.remedy,
            severity="warning",
        )
        for each in audit_bytes(data.tokenizer, data.validation.ids)
    ]
    own = _judged(found["memory"], found["deployment"], data, schedule)
    if seconds or schedule.seconds is None:
        pace = float(found["pace"].step) if seconds else 0.0
        planned = phases(schedule, step_time=pace, cost=cost)
        found["phases"] = _phases(planned)
        own += [
            Check(name=f"phase {p.name}", value=1, threshold=0, message=p.reason, severity=p.level)
            for p in planned
            if p.level != "ok"
        ]
    if make is not None:
        own += alive(Recipe(model=config, train=schedule), data, make=make)
    return found | {"checks": check_table([*own, *faults])}


def preflight_of(given: Mapping[str, Any], *, seconds: float = 1.5) -> dict[str, xr.Dataset]:
    """Return `preflight` of the parameters that the training notebook declares, by name."""
    parent = given["parent"]
    tokenizer = given["tokenizer"] or (find_run(parent).path / "tokenizer" if parent else "")
    told = {name: given[name] for name in ("text_field", "vocab_size")}
    data = open_data(given["corpus"], tokenizer=tokenizer, **told)
    shape = ({} if parent else {"vocab_size": data.tokenizer.vocab_size}) | given["model"]
    config = preset(given["preset"], parent=parent, **shape)
    known = given.keys() & {field.name for field in fields(TrainConfig)}
    if both := known & given["more"].keys():
        wanted, remedy = "parameters that are given once", "Leave one of them out."
        raise InputError("more", expected=wanted, found=", ".join(sorted(both)), remedy=remedy)
    origin = {name: given[name] for name in ("seed", "parent", "initial_state")}
    make: Make = partial(starting_point, **origin)
    start = None
    if parent or given["initial_state"]:
        start = judge_start(make(config), data, sequence_length=given["sequence_length"])
    named = {name: given[name] for name in known}
    schedule = train_config(**named, **given["more"], start=start)
    return preflight(config, data, schedule, seconds=seconds, make=make)


def refuse(checks: xr.Dataset) -> None:
    """Raise where an error stands among the checks of `preflight`.

    Raises
    ------
    InputError
        With every error and its remedy.
    """
    rows = checks.where(checks.level == "error", drop=True).to_dataframe()
    if len(rows):
        found = "; ".join(f"{name}: {each.message}" for name, each in rows.iterrows())
        remedy = " ".join(dict.fromkeys(each for each in rows.remedy if each))
        where, wanted = "training", "checks without an error"
        raise InputError(where, expected=wanted, found=found, remedy=remedy or "Change the plan.")


def _phases(planned: list[Phase]) -> xr.Dataset:
    """Label when each phase begins and ends."""
    never = (math.nan, math.nan)
    steps = np.array([never if p.begins is None else (p.begins, p.ends) for p in planned], float)
    times = np.array([p.seconds or never for p in planned], float)
    rows = {
        "begins": ("phase", steps[:, 0], "updates done before it", "1"),
        "ends": ("phase", steps[:, 1], "updates done after it", "1"),
        "begins_at": ("phase", times[:, 0], "training time before it", "s"),
        "ends_at": ("phase", times[:, 1], "training time after it", "s"),
        "level": ("phase", [p.level for p in planned], "level", "1"),
    }
    return _labelled(rows, phase=[p.name for p in planned])


def _labelled(rows: Mapping[str, tuple[Any, ...]], **coords: Any) -> xr.Dataset:
    """Make a Dataset of variables: dims, values, name in words, unit."""
    return check(xr.Dataset({name: variable(*each) for name, each in rows.items()}, coords))


def _memory(config: ModelConfig, data: Data, schedule: TrainConfig) -> xr.Dataset:
    """Label the memory of training, beside what the machine has."""
    size = training_bytes(config, schedule, tokenizer=data.tokenizer)
    if schedule.device.startswith("cuda"):
        has = torch.cuda.get_device_properties(schedule.device).total_memory
    else:
        has = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    rows = {
        "bytes": ("part", list(size.values()), "memory of training", "byte"),
        "available": ((), has, f"memory of {schedule.device}", "byte"),
    }
    return _labelled(rows, part=list(size))


def _deployment(config: ModelConfig, schedule: TrainConfig) -> xr.Dataset:
    """Label the bytes of an artifact, and of a model in use with a full context."""
    weights = sum(parameters_by_part(config).values())
    cache = cache_bytes(config, context=schedule.sequence_length)
    artifact = [gaussian_bytes(config, bits=bits) for bits in BITS]
    used = [weights * bits // 8 + cache for bits in BITS]
    rows = {
        "artifact": ("setting", artifact, "artifact of all weights", "byte"),
        "memory": ("setting", used, "weights and cache in use", "byte"),
        "cache": ((), cache, "keys and values of one context", "byte"),
    }
    return _labelled(rows, setting=list(BITS))


def _pace(
    config: ModelConfig, data: Data, schedule: TrainConfig, seconds: float, cost: Cost
) -> xr.Dataset:
    """Label the time of a step as training begins, and what follows from it."""
    step = step_seconds(config, data, schedule, seconds=seconds)
    *clock, last = moments(schedule, step_time=step, cost=cost)
    settings = [vars(schedule) | active(schedule.switches, moment) for moment in clock]
    tokens = sum(each["tokens_per_step"] for each in settings)
    flops = cost(schedule.passes)
    rate = flops * schedule.tokens_per_step / step
    rows = {
        "step": ((), step, "time of a step", "s"),
        "training": ((), last.elapsed, "time of all steps, without validation", "s"),
        "steps": ((), last.step, "steps that are reached", "1"),
        "tokens": ((), tokens, "tokens that are learned from", "token"),
        "flops": ((), flops, "arithmetic of a token", "flop"),
        "rate": ((), rate, "effective arithmetic", "flop/s"),
        "utilisation": ((), rate / arithmetic_rate(schedule), "share of a matrix product's", "1"),
    }
    return _labelled(rows)


def _judged(
    memory: xr.Dataset, deployment: xr.Dataset, data: Data, schedule: TrainConfig
) -> list[Check]:
    """Compare memory with the machine, an artifact with the cap, and steps with the text."""
    peak, has = float(memory.bytes.sel(part=list(PEAKS)).max()), float(memory.available)
    file = dict(zip(BITS, deployment.artifact.values.tolist(), strict=True))
    fits = ", ".join(f"{bits} bits" for bits in BITS if file[bits] <= CAP)
    read = schedule.steps * schedule.tokens_per_step / len(data.train.ids)
    fitting = Check(
        name="memory",
        value=peak,
        threshold=has,
        unit="byte",
        message=f"training takes {peak / 1e9:.2f} GB at most, the machine has {has / 1e9:.2f} GB",
        remedy="Lower tokens_per_pass: results do not depend on it.",
    )
    small = Check(
        name="artifact",
        value=file[8],
        threshold=CAP,
        unit="byte",
        message=f"at 8 bits the artifact takes about {file[8]:,.0f} of {CAP:,} bytes",
        remedy=f"It fits at {fits or 'no width here: make the model smaller'}.",
        severity="warning",  # a rule of one contest; `train` refuses errors
    )
    fresh = Check(
        name="repeats",
        value=read,
        threshold=EPOCHS,
        message=f"{schedule.steps} steps read the training split {read:.2f} times",
        remedy="Use more text (were all shards found?), or fewer steps.",
        severity="warning",
    )
    return [fitting, small, fresh]
