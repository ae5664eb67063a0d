"""Processes that share every update: as one process would do it, and what happens when one dies."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from workbench.folder import InputError, RunFolder, read_jsonl, runs_root
from workbench.model import new_network, preset, state
from workbench.text import open_data
from workbench.training import CrossEntropy, TrainConfig, begin, next_token_loss, train
from workbench.training import step as module
from workbench.training.averages import AverageConfig
from workbench.training.begin import batches
from workbench.training.distributed import WorkerFailed, agreed, place, share
from workbench.training.objectives import ObjectiveConfig
from workbench.training.optimizers import OptimizerConfig
from workbench.training.step import Learner, gradient

CONFIG = TrainConfig(
    steps=20,
    tokens_per_step=128,
    sequence_length=16,
    micro_batches=2,
    tokens_per_pass=32,
    warmdown_steps=4,
    validate_every=8,
    validation_tokens=160,
    checkpoints=2,
    measure_every=5,
    resume_seconds=0.0,
    objective=ObjectiveConfig(future_tokens=1),  # with weights of its own
    average=AverageConfig(kind="ema", decay=0.9),
    optimizer=OptimizerConfig(clip_grad_norm=0.5),
)
TWO = replace(CONFIG, processes=2)


def fresh(name, data, config):
    network = new_network(preset("demo", n_layer=2, d_model=16, vocab_size=257), seed=0)
    return network, begin(name, network, data, config)


def test_rows_are_shared_out_once_each():
    part = np.arange(12).reshape(6, 2)
    shares = [share(part, rank, 3) for rank in range(3)]
    assert np.array_equal(np.concatenate(shares), part)
    with pytest.raises(InputError, match="divisor of the 6 rows.*found 4"):
        share(part, 0, 4)


def test_a_process_alone_agrees_with_itself():
    assert place() == (0, 1) and agreed(0.1, True) == [0.1, 1.0]


def test_ragged_rows_are_refused_before_anything_is_made(own_data_root, tiny_data):
    with pytest.raises(InputError, match="processes"):
        fresh("ragged", tiny_data, replace(CONFIG, processes=3))
    assert not (runs_root() / "ragged").exists()
    with pytest.raises(InputError, match="processes: expected 1 or more"):
        replace(CONFIG, processes=0)


def test_a_function_cannot_be_sent_to_other_processes(own_data_root, tiny_data):
    network, run = fresh("own", tiny_data, TWO)
    with pytest.raises(InputError, match="objective"):
        train(network, tiny_data, TWO, run, objective=next_token_loss)


@pytest.mark.parametrize("counted", ["all", "few"])
def test_shares_add_up_to_the_gradient_of_the_whole(tiny_data, monkeypatch, counted):
    """The mean over processes, as DistributedDataParallel takes it, by hand."""
    network = new_network(preset("demo", n_layer=2, d_model=16, vocab_size=257), seed=0)
    goal = CrossEntropy(CONFIG.objective, d_model=16, tokenizer=tiny_data.tokenizer)
    learner, losses, grads = Learner(network, goal), [], []
    inputs, targets = batches(tiny_data, CONFIG)(0)
    if counted == "few":  # processes with unequal numbers of targets
        targets = np.where(np.arange(len(targets))[:, None] < 5, targets, -100)
    monkeypatch.setattr(module.dist, "all_reduce", lambda tensor: None)
    for rank, size in ((0, 1), (0, 2), (1, 2)):
        monkeypatch.setattr(module, "place", lambda rank=rank, size=size: (rank, size))
        learner.zero_grad(set_to_none=True)
        line = gradient(learner, (inputs, targets), CONFIG, with_noise=True)
        assert ("squares" in line) == (size == 1 and counted == "all"), "noise needs all passes"
        losses.append(float(line["loss"]))
        grads.append(
            {n: p.grad.clone() for n, p in learner.named_parameters() if p.grad is not None}
        )
    assert losses[0] == pytest.approx(losses[1] + losses[2], rel=1e-6)
    for name, whole in grads[0].items():
        torch.testing.assert_close((grads[1][name] + grads[2][name]) / 2, whole)


def children(run: RunFolder) -> dict[str, int]:
    """Find the processes that train a run, by rank."""
    found = {}
    for each in Path("/proc").glob("[0-9]*"):
        try:
            command = (each / "cmdline").read_bytes().split(b"\0")
            told = (each / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"workbench.training" in command and str(run.path).encode() in command:
            rank = next(x for x in told if x.startswith(b"RANK="))
            found[rank.decode()[5:]] = int(each.name)
    return found


def close(one, other):
    first, second = (read_jsonl(run.metrics) for run in (one, other))
    assert [line["step"] for line in first] == [line["step"] for line in second]
    for name in ("loss", "grad_norm", "learning_rate", "tokens", "clipped"):
        theirs = [line[name] for line in second]
        assert [line[name] for line in first] == pytest.approx(theirs, rel=0, abs=1e-5), name
    return first, second


@pytest.fixture
def alone(own_data_root, tiny_data):
    """A run of one process."""
    network, run = fresh("alone", tiny_data, CONFIG)
    train(network, tiny_data, CONFIG, run)
    return run


@pytest.mark.slow
def test_two_equal_one_though_one_was_lost_on_the_way(alone, tiny_data):
    network, run = fresh("two", tiny_data, TWO)
    seen, lost = [], []

    def kill(line):
        seen.append(line["step"])
        if line["step"] >= 7 and not lost:
            os.kill(children(run)["1"], signal.SIGKILL)
            lost.append(time.perf_counter())

    with pytest.raises(WorkerFailed, match=r"^rank 1: Signal 9 \(SIGKILL\)"):
        train(network, tiny_data, TWO, run, watch=kill)
    assert time.perf_counter() - lost[0] < 10 and not children(run), "the others end too"
    record = run.record()
    assert record["status"] == "failed" and "rank 1: Signal 9" in record["reason"]
    assert seen[:7] == list(range(1, 8))

    network = new_network(network.config, seed=1)  # another process knows no weights
    train(network, tiny_data, TWO, run, watch=lambda line: seen.append(line["step"]))
    own, theirs = close(run, alone)
    assert own[9].keys() ^ theirs[9].keys() == {"gradient_variance", "gradient_square"}
    record = run.record()
    assert record["status"] == "finished" and record["steps_done"] == 20
    assert not list(run.path.glob("resume-*")) and record["training"]["processes"] == 2
    written = load_file(run.path / "model.safetensors")
    assert all(torch.equal(each, written[name]) for name, each in state(network).items())
    for folder in ("checkpoints", "states"):
        names = [sorted(x.name for x in (r.path / folder).iterdir()) for r in (run, alone)]
        assert names[0] == names[1]


@pytest.mark.slow
def test_two_are_stopped_and_one_goes_on(alone, tiny_data):
    network, run = fresh("two", tiny_data, TWO)

    def ask(line):
        if line["step"] == 3:
            run.request_stop()

    config = replace(TWO, steps=100_000)
    train(network, tiny_data, config, run, watch=ask)
    record = run.record()
    assert record["status"] == "stopped" and record["steps_done"] >= 3
    lines = read_jsonl(run.metrics)
    assert len(lines) == record["steps_done"] < 100_000
    assert lines[2]["loss"] == pytest.approx(read_jsonl(alone.metrics)[2]["loss"], abs=1e-5)
    train(network, tiny_data, replace(CONFIG, steps=len(lines) + 2), run)
    assert run.record()["steps_done"] == len(lines) + 2


@pytest.mark.slow
def test_processes_end_when_nobody_is_left_to_wait_for_them(own_data_root, tiny_data):
    config = replace(TWO, steps=1_000_000)
    _, run = fresh("two", tiny_data, config)
    source = str(tiny_data.corpus.source)
    program = (
        "import sys; from workbench import text, training; from workbench.folder import find_run\n"
        "run, data = find_run('two'), text.open_data(sys.argv[1], tokenizer='bytes')\n"
        "from workbench.model import new_network, preset\n"
        "model = new_network(preset('demo', n_layer=2, d_model=16, vocab_size=257), seed=0)\n"
        "import json; told = json.loads(sys.argv[2])\n"
        "training.train(model, data, training.recorded_config(told, {}), run)\n"
    )
    from dataclasses import asdict

    command = [sys.executable, "-c", program, source, json.dumps(asdict(config))]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as launcher:
        waited = time.perf_counter()
        while not read_jsonl(run.metrics) and time.perf_counter() - waited < 120:
            time.sleep(0.2)
        launcher.kill()
    waited = time.perf_counter()
    while children(run) and time.perf_counter() - waited < 20:
        time.sleep(0.2)
    assert not children(run)
    record = run.record()
    assert record["status"] == "stopped" and record["steps_done"] == len(read_jsonl(run.metrics))


@pytest.mark.slow
def test_data_that_the_record_cannot_find_again_are_refused(own_data_root, tiny_data):
    data = replace(tiny_data, train=tiny_data.train.halves()[0])
    network, run = fresh("half", data, TWO)
    with pytest.raises(WorkerFailed, match="data that its record can find again"):
        train(network, data, TWO, run)


def test_the_corpus_is_one_that_workers_can_open(tiny_data):
    again = open_data(tiny_data.corpus.source, tokenizer="bytes")
    assert again.identity() == tiny_data.identity()
