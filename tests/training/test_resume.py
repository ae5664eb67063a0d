"""A run that was cut short continues as if it had not been: bit for bit, wherever it ended."""

import importlib
import random
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.folder import InputError, environment, find_run, read_jsonl
from workbench.model import load_model, new_network, preset, state
from workbench.training import (
    Moment,
    TrainConfig,
    begin,
    branch,
    next_token_loss,
    recorded_config,
    reopen,
    schedule,
    train,
    train_config,
)
from workbench.training.resume import Parts, load_standing, newest_standing
from workbench.training.schedule import group_settings

TIMED = ("seconds", "ms")
CONFIG = TrainConfig(
    steps=9,
    tokens_per_step=64,
    sequence_length=16,
    micro_batches=2,
    tokens_per_pass=32,
    warmdown_steps=4,
    validate_every=4,
    validation_tokens=160,
    checkpoints=3,
    measure_every=2,
    resume_seconds=0.0,
)


class Killed(BaseException):
    """Ends a run from inside, as nothing that it could catch."""


def traces(run):
    return [{k: v for k, v in x.items() if k not in TIMED} for x in read_jsonl(run.metrics)]


def fresh(name, data, config=CONFIG):
    network = new_network(preset("demo", n_layer=2, d_model=16, vocab_size=257), seed=0)
    return network, begin(name, network, data, config)


@pytest.fixture
def whole(own_data_root, tiny_data):
    """A run that was never interrupted."""
    network, run = fresh("whole", tiny_data)
    train(network, tiny_data, CONFIG, run)
    return run


def same_weights(one, other):
    first, second = (state(load_model(run.path)) for run in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("resume_seconds", [0.0, 1e9])
@pytest.mark.parametrize("ends", [(1,), (4,), (2, 5, 5, 8), (9,)])
def test_a_run_cut_short_ends_as_one_that_was_not(whole, tiny_data, ends, resume_seconds):
    config = replace(CONFIG, resume_seconds=resume_seconds)
    network, run = fresh("cut", tiny_data, config)
    for end in ends:

        def kill(line, end=end):
            if line["step"] == end:
                raise Killed

        with pytest.raises(Killed):
            train(network, tiny_data, config, run, watch=kill)
        with run.metrics.open("a") as file:
            file.write('{"step": 7, "los')  # a line that the kill cut short
        network = new_network(network.config, seed=1)  # another process knows no weights
    train(network, tiny_data, config, run)
    assert traces(run) == traces(whole) and same_weights(run, whole)
    assert run.record()["status"] == "finished" and run.record()["steps_done"] == 9
    assert newest_standing(run) is None, "a finished run has nothing to continue"
    for folder in ("checkpoints", "states"):
        names = [sorted(each.name for each in (r.path / folder).iterdir()) for r in (run, whole)]
        assert names[0] == names[1]
    for path in sorted(whole.checkpoints.iterdir()):
        mine, theirs = load_file(run.checkpoints / path.name), load_file(path)
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_what_an_objective_draws_is_continued_too(own_data_root, tiny_data):
    """The random state of torch is part of where a run stands."""

    def noisy(model, inputs, targets):
        return next_token_loss(model, inputs, targets) * (1 + 0.1 * torch.rand(()))

    curves = []
    for name, end in (("one", None), ("two", 5)):
        torch.manual_seed(3)
        network, run = fresh(name, tiny_data)
        if end is not None:

            def kill(line, end=end):
                if line["step"] == end:
                    raise Killed

            with pytest.raises(Killed):
                train(network, tiny_data, CONFIG, run, watch=kill, objective=noisy)
            torch.manual_seed(99)
        train(network, tiny_data, CONFIG, run, objective=noisy)
        curves.append(traces(run))
    assert curves[0] == curves[1]


def test_watchers_see_the_earlier_lines_again(own_data_root, tiny_data):
    network, run = fresh("cut", tiny_data)
    seen = []

    def kill(line):
        if line["step"] == 4:
            raise Killed

    with pytest.raises(Killed):
        train(network, tiny_data, CONFIG, run, watch=kill)
    train(network, tiny_data, CONFIG, run, watch=seen.append)
    assert [line["step"] for line in seen] == list(range(1, 10))


def test_a_time_budget_goes_on_where_it_was(own_data_root, tiny_data):
    config = replace(CONFIG, steps=10**6, seconds=0.6, checkpoints=0, validate_every=0)
    network, run = fresh("timed", tiny_data, config)

    def kill(line):
        if line["seconds"] > 0.3:
            raise Killed

    with pytest.raises(Killed):
        train(network, tiny_data, config, run, watch=kill)
    before = read_jsonl(run.metrics)
    train(network, tiny_data, config, run)
    lines = read_jsonl(run.metrics)
    assert lines[: len(before) - 1] == before[:-1], "elapsed time and multipliers are as recorded"
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds) and seconds[-1] >= 0.6 > seconds[-2]


def test_a_request_stops_between_steps_and_the_run_goes_on(whole, tiny_data):
    network, run = fresh("asked", tiny_data)

    def ask(line):
        if line["step"] == 3:
            run.request_stop()

    train(network, tiny_data, CONFIG, run, watch=ask)
    record = run.record()
    assert (record["status"], record["steps_done"]) == ("stopped", 3)
    assert not network.training and len(read_jsonl(run.metrics)) == 3
    load_model(run.path)
    train(new_network(network.config, seed=2), tiny_data, CONFIG, run)
    assert traces(run) == traces(whole) and same_weights(run, whole)


def test_a_branch_of_a_kept_step_reproduces_its_parent(whole, tiny_data):
    """Same settings from the middle give the same end; others give another, from the same start."""
    kept = sorted(int(path.stem.split("-")[1]) for path in whole.states.iterdir())
    assert kept == [0, 3, 6, 9]
    network, run = fresh("branch", tiny_data)
    branch(run, whole, 6)
    train(network, tiny_data, CONFIG, run)
    assert traces(run) == traces(whole) and same_weights(run, whole)

    longer = replace(CONFIG, steps=12)
    network, run = fresh("longer", tiny_data, longer)
    branch(run, whole, 3)
    train(network, tiny_data, longer, run)
    lines = traces(run)
    assert lines[:3] == traces(whole)[:3] and len(lines) == 12 and lines[8] != traces(whole)[8]
    with pytest.raises(InputError, match="kept: 0, 3, 6, 9"):
        branch(run, whole, 4)


def test_a_standing_of_another_run_is_refused(whole, tiny_data, tmp_path):
    wide = new_network(preset("demo", n_layer=2, d_model=32, vocab_size=257), seed=0)
    run = begin("other", wide, tiny_data, CONFIG)
    branch(run, whole, 6)
    with pytest.raises(InputError, match="expected"):
        train(wide, tiny_data, CONFIG, run)
    save_file({"model.x": torch.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match="where a run stands"):
        load_standing(tmp_path / "bare.safetensors", Parts(model=wide, optimizers=[]))


@pytest.mark.slow
def test_killed_processes_leave_nothing_that_differs(tmp_path, monkeypatch):
    """As `bench/kills.py` does fifty times."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "bench")
    kills = importlib.import_module("kills")
    corpus = kills.write_corpus(tmp_path, random.Random(0))
    kills.train(tmp_path / "whole", corpus)
    assert kills.child(tmp_path / "killed", corpus, after=25)
    kills.train(tmp_path / "killed", corpus)
    assert kills.same(tmp_path / "killed", tmp_path / "whole")


def test_a_branch_obeys_the_warmdown_it_is_given():
    """Runs that name none record a share, which goes before steps."""
    parent = asdict(train_config(optimizer={}, device="cpu", steps=200))
    assert parent["warmdown_share"] == 0.3
    child = recorded_config(parent, {"steps": 400, "warmdown_steps": 100})
    factor = schedule(**group_settings(child)["matrix"])
    factors = [factor(Moment(step=step, steps=400)) for step in (0, 299, 300, 350)]
    assert factors == [1.0, 1.0, 1.0, 0.5]
    for changes in ({"stesp": 3}, {"optimizer": "x"}, {"optimizer": {"matrix_rl": 1.0}}):
        with pytest.raises(InputError):
            recorded_config(parent, changes)


def test_a_branch_of_the_last_step_keeps_checkpoints_of_its_own(whole, tiny_data):
    longer = replace(CONFIG, steps=18)
    network, run = fresh("longer", tiny_data, longer)
    branch(run, whole, 9)
    train(network, tiny_data, longer, run)
    assert sorted(path.stem for path in run.states.iterdir()) == ["step-000012", "step-000018"]


def test_a_finished_run_is_not_trained_over(whole, tiny_data):
    lines, network = traces(whole), new_network(load_model(whole.path).config, seed=0)
    with pytest.raises(InputError, match="one that has ended"):
        train(network, tiny_data, CONFIG, whole)
    assert traces(whole) == lines and whole.record()["status"] == "finished"


def test_reopening_refuses_what_cannot_go_on(whole, tiny_data):
    with pytest.raises(InputError, match="nothing left to continue"):
        reopen("whole")
    with pytest.raises(InputError, match="Give step and name"):
        reopen("whole", step=3)
    with pytest.raises(InputError, match="kept: 0, 3, 6, 9"):
        reopen("whole", step=4, branch_name="other")
    with pytest.raises(InputError, match="future_tokens"):
        reopen("whole", step=3, branch_name="other", changes={"objective": {"future_tokens": 1}})
    with pytest.raises(InputError):
        find_run("other")
    whole.update(status="running", environment={"host": "gone", "pid": 1})
    with pytest.raises(InputError, match="force true"):
        reopen("whole")
    run, network, _, config = reopen("whole", step=3, branch_name="other", changes={"steps": 12})
    assert run.record()["branch"] == {"step": 3, "changes": {"steps": 12}} and config.steps == 12
    assert run.record()["parent"] == "whole" and len(traces(run)) == 9
    train(network, tiny_data, config, run)
    assert len(traces(run)) == 12


def test_a_process_of_an_earlier_start_of_the_machine_is_gone(whole):
    here = environment()
    whole.update(status="running", environment=here)
    assert whole.record()["status"] == "running"
    whole.update(environment={**here, "boot": "another"})
    assert whole.record()["status"] == "crashed"
