"""Make the folder of a run, once everything it needs has proved good."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from workbench.folder import InputError, RunFolder, create_run, find_run, write_json
from workbench.model import ModelConfig, Network, from_json, to_json
from workbench.text import Data, record_batches, reopen_data, stream_batches, windows
from workbench.training.config import TrainConfig, recorded_config
from workbench.training.distributed import share
from workbench.training.resume import branch, kept_state, newest_standing


def begin(
    name: str,
    model: Network,
    data: Data,
    config: TrainConfig,
    *,
    origin: Mapping[str, str] | None = None,
    replace: bool = False,
) -> RunFolder:
    """Make the folder of a run about to be trained: its record, tokenizer and configuration.

    Parameters
    ----------
    origin : mapping, optional
        ``parent`` (a run) and ``initial_state`` (a file), as far as they apply.
    replace : bool
        Remove a run of that name first.

    Raises
    ------
    InputError
        If the data do not fit the model or the name is taken; nothing is made then.
    """
    check_data(model, data, sequence_length=config.sequence_length)
    for late in ({}, *(each.settings for each in config.switches)):  # refused before it is written
        now = dataclasses.replace(config, **late)
        share(batches(data, now)(0)[0], 0, config.processes)
    check_passes(model.config, config)
    parent = (origin or {}).get("parent") or None
    if parent is not None:
        theirs = find_run(parent).record()["data"]["tokenizer_hash"]
        if theirs != data.tokenizer.hash:
            raise InputError(
                f"parent {parent!r}",
                expected=f"tokenizer {theirs[:12]}, the parent's",
                found=f"tokenizer {data.tokenizer.hash[:12]}",
                remedy="Pass -p tokenizer with the parent's tokenizer folder.",
            )
    run = describe(name, model, data, replace=replace)
    write_json(run.path / "model.json", to_json(model.config))
    run.update(
        parent=parent,
        initial_state=(origin or {}).get("initial_state") or None,
        seed=config.seed,
    )
    return run


def reopen(
    name: str | Path,
    *,
    step: int | None = None,
    branch_name: str = "",
    changes: Mapping[str, Any] | None = None,
    force: bool = False,
) -> tuple[RunFolder, Network, Data, TrainConfig]:
    """Open a run to train it further: where it stands, or as a new run from one of its kept steps.

    Parameters
    ----------
    name : str or Path
        A run that was stopped or killed, or the parent of a branch.
    step : int, optional
        Kept step at which a branch begins.
    branch_name : str
        Of the new run; both or neither.
    changes : mapping, optional
        Fields of `TrainConfig` that differ in the branch, such as a later end or a warmdown.
    force : bool
        Go on although the record says that the run is still running, on another machine.

    Returns
    -------
    run : RunFolder
    network : Network
        Of the right shape; `train` fills in the weights.
    data : Data
    config : TrainConfig

    Raises
    ------
    InputError
        If the run cannot go on: it is still running, ended, was trained by another loop or with an
        objective of its own; or the step was not kept. Nothing is made then.
    """
    run = find_run(name)
    record = run.record()
    where, status = f"run {run.name!r}", record["status"]
    if (step is None) != (not branch_name) or (changes and step is None):
        remedy = "Give step and name to branch; leave out both, and changes, to continue."
        found = f"step {step}, name {branch_name!r}, changes {dict(changes or {})}"
        raise InputError(where, expected="a branch, or none", found=found, remedy=remedy)
    problem, remedy = "", "Train from its weights: -p parent RUN."
    if record.get("objective") or "optimizer" not in record.get("training", {}):
        problem = "one that `workbench train` did not make by itself"
    elif step is not None:
        kept_state(run, step)
    elif status == "running" and not force:
        problem = "one that is still running"
        remedy = f"Stop it first; if {record['environment']['host']} is gone, pass -p force true."
    elif newest_standing(run) is None:
        problem, remedy = f"status {status}, nothing left to continue", "Branch from a kept step."
    if problem:
        raise InputError(where, expected="a run to go on with", found=problem, remedy=remedy)
    data = reopen_data(record["data"], run.path / "tokenizer")
    config = recorded_config(record["training"], changes or {})
    network = Network(from_json(record["model"]))
    if step is not None:
        heads = (recorded_config(record["training"], {}).objective, config.objective)
        if heads[0].future_tokens != heads[1].future_tokens:
            wanted, found = (str(each.future_tokens) for each in heads)
            remedy = "Begin from its weights for that: -p parent RUN."
            raise InputError("future_tokens", expected=wanted, found=found, remedy=remedy)
        parent, run = run, begin(branch_name, network, data, config)
        run.update(parent=parent.name, branch={"step": step, "changes": dict(changes or {})})
        branch(run, parent, step)
    return run, network, data, config


def check_data(model: Network, data: Data, *, sequence_length: int) -> None:
    """Refuse a tokenizer with more ids than the model has, and too short a validation split."""
    if data.tokenizer.vocab_size > model.config.vocab_size:
        raise InputError(
            "model field 'vocab_size'",
            expected=f"at least the tokenizer's {data.tokenizer.vocab_size}",
            found=str(model.config.vocab_size),
            remedy="Leave it out to take the tokenizer's, or use another tokenizer.",
        )
    next(windows(data.validation, sequence_length=sequence_length))


def check_passes(model: ModelConfig, config: TrainConfig) -> None:
    """Refuse more passes of recurrent blocks than the model has, and fewer at the end.

    Raises
    ------
    InputError
        Before training or a switch would.
    """
    late = sorted(config.switches, key=lambda switch: switch.at)
    wanted = [each for each in (config.passes, *(s.passes for s in late)) if each is not None]
    if wanted and not (max(wanted) == wanted[-1] == model.passes):
        expected, remedy = f"up to {model.passes}, the model's, at the end", "Set its recurrence."
        raise InputError("passes", expected=expected, found=str(wanted), remedy=remedy)


def describe(name: str, model: Network, data: Data, *, replace: bool) -> RunFolder:
    """Make the folder of a run with its tokenizer, and record its shape and its data."""
    run = create_run(name, replace=replace)
    data.tokenizer.save(run.path / "tokenizer")
    run.update(
        model=to_json(model.config),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        data=data.identity(),
    )
    return run


def batches(
    data: Data, config: TrainConfig, *, start: int = 0
) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """Choose how the training split is cut; `start` is where step 0 begins in it."""
    if data.train.answers is not None:
        return record_batches(
            data.train,
            sequence_length=config.sequence_length,
            tokens_per_step=config.tokens_per_step,
            seed=config.seed,
            start=start,
        )
    return stream_batches(
        data.train,
        sequence_length=config.sequence_length,
        tokens_per_step=config.tokens_per_step,
        micro_batches=config.micro_batches,
        start=start,
    )


def advance(data: Data, config: TrainConfig) -> int:
    """Return how far a step moves in the training split, in tokens, or in records."""
    if data.train.answers is not None:
        return max(1, config.tokens_per_step // config.sequence_length)
    return config.tokens_per_step + config.micro_batches
