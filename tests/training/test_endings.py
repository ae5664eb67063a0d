"""Runs that end badly, or early: what they say about it, and what they keep."""

import math
import time
from dataclasses import replace

import pytest
import torch

from workbench.folder import read_jsonl
from workbench.model import load_model, state
from workbench.training import (
    Diverged,
    NonFiniteLoss,
    TrainConfig,
    divergence_guard,
    next_token_loss,
    optimizer_config,
    train,
)

SHORT = TrainConfig(
    steps=6,
    tokens_per_step=64,
    sequence_length=16,
    micro_batches=2,
    warmdown_steps=3,
    validate_every=4,
    validation_tokens=160,
    checkpoints=2,
)


def test_a_nan_weight_is_named_at_its_step(start, tiny_data):
    network, run = start(SHORT)

    def plant(line):
        if line["step"] == 2:
            with torch.no_grad():
                network.blocks[1].mlp.fc.weight[0, 0] = float("nan")

    with pytest.raises(NonFiniteLoss, match=r"step 3: .*weight blocks\.1\.mlp\.fc\.weight"):
        train(network, tiny_data, SHORT, run, watch=plant)
    record = run.record()
    assert record["status"] == "failed" and "step 3" in record["reason"]
    assert len(read_jsonl(run.metrics)) == 2
    assert not (run.path / "model.safetensors").exists(), "no broken weights pass for a result"


@pytest.mark.parametrize(
    ("key", "value"),
    [("scalar_lr", 1e38), ("matrix_lr", 1e38), ("tied_embedding_lr", 1e38), ("scalar_lr", 1e39)],
)
@pytest.mark.parametrize("steps", [1, 6])
def test_an_absurd_rate_never_finishes_with_broken_weights(start, tiny_data, key, value, steps):
    """Whether the overflow shows in the loss, a scalar or the validation, it has one name."""
    optimizer = optimizer_config(**{key: value})
    config = replace(SHORT, steps=steps, optimizer=optimizer, warmdown_steps=0)
    network, run = start(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01)
    with pytest.raises(NonFiniteLoss, match="step [12]: .*Lower the learning rate"):
        train(network, tiny_data, config, run)
    assert run.record()["status"] == "failed"
    assert not (run.path / "model.safetensors").exists()


def test_an_infinite_objective_is_refused(start, tiny_data):
    network, run = start(SHORT)
    with pytest.raises(NonFiniteLoss, match="step 1: loss inf"):
        train(
            network,
            tiny_data,
            SHORT,
            run,
            objective=lambda model, x, y: next_token_loss(model, x, y) + math.inf,
        )


def test_an_interrupted_run_keeps_its_weights(start, tiny_data):
    network, run = start(SHORT)

    def interrupt(line):
        if line["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(network, tiny_data, SHORT, run, watch=interrupt)
    record = run.record()
    assert (record["status"], record["reason"], record["steps_done"]) == (
        "stopped",
        "interrupted",
        3,
    )
    assert len(read_jsonl(run.metrics)) == 3
    kept = state(load_model(run.path))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in state(network).items())


def test_any_other_failure_is_recorded(start, tiny_data):
    network, run = start(SHORT)

    def fail(line):
        raise OSError("disk full")

    with pytest.raises(OSError):
        train(network, tiny_data, SHORT, run, watch=fail)
    assert run.record()["status"] == "failed" and "disk full" in run.record()["reason"]


def test_a_time_budget_stops(start, tiny_data):
    config = replace(SHORT, steps=10**6, seconds=0.3, checkpoints=3, validate_every=0)
    network, run = start(config)
    began = time.monotonic()
    train(network, tiny_data, config, run)
    assert time.monotonic() - began < 20
    lines = read_jsonl(run.metrics)
    assert lines[-1]["seconds"] >= 0.3 and all(line["seconds"] < 0.3 for line in lines[:-1])
    assert lines[-1]["learning_rate_multiplier"] < 0.7 and "validation_bits_per_byte" in lines[-1]
    assert run.record()["steps_done"] == len(lines) < 10**6
    kept = sorted(path.name for path in run.checkpoints.iterdir())
    assert 2 <= len(kept) <= 4 and kept[-1] == f"step-{len(lines):06d}.safetensors"


@pytest.mark.parametrize("begun", [2.0, 6.9])  # from trained weights, and from none
def test_a_run_that_comes_apart_is_stopped(begun):
    guard = divergence_guard(window=5, rise=1.0)
    for step in range(40):
        guard({"step": step, "loss": begun + 0.02 * step + (8.0 if step == 1 else 0)})
    with pytest.raises(Diverged, match=r"step 4\d: .*Lower the learning rate"):
        for step in range(40, 60):
            guard({"step": step, "loss": begun + 3.0})


def test_spikes_and_slow_rises_pass():
    guard = divergence_guard(window=5, rise=1.0)
    for step in range(100):
        guard({"step": step, "loss": 4.0 + 0.005 * step + (4.0 if step % 20 == 7 else 0)})


def test_a_diverged_run_says_so_in_its_record(start, tiny_data):
    config = replace(SHORT, steps=60, validate_every=0)
    network, run = start(config)

    def objective(model, inputs, targets):
        steps = len(read_jsonl(run.metrics))
        return next_token_loss(model, inputs, targets) + steps / 4 * targets.numel()

    with pytest.raises(Diverged):
        train(network, tiny_data, config, run, objective=objective)
    assert run.record()["status"] == "failed" and "Diverged: step 4" in run.record()["reason"]
    assert len(read_jsonl(run.metrics)) < 60
