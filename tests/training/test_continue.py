"""Trained weights go on: gently unless told otherwise, from a fresh optimizer, under guard."""

import json

import numpy as np
import pytest
import torch

from workbench.folder import create_run, read_jsonl
from workbench.foreign import write_huggingface
from workbench.model import new_network, preset, save_model, starting_point, state
from workbench.text import open_data
from workbench.training import (
    NonFiniteLoss,
    adopt,
    begin,
    judge_start,
    optimizers,
    read_foreign,
    train,
    train_config,
)

SIZES = {"tokens_per_step": 256, "sequence_length": 32, "micro_batches": 1, "checkpoints": 0}
WORDS = "the cat sat on a mat and then slept near old trees by a wide grey river bank".split()
ORDER = "mat and then slept near the cat sat by old trees on a wide grey river bank".split()
# Bits per byte of a model that knows the words and nothing of their order.
FLOOR = np.log2(len(WORDS)) / np.mean([len(word) + 1 for word in WORDS])


def sentences(words, *, seed):
    """Write documents in which every word is followed by one of three."""
    draw, found = np.random.default_rng(seed), []
    for _ in range(60):
        at, document = int(draw.integers(len(words))), []
        for _ in range(60):
            document.append(words[at])
            at = (at + int(draw.integers(1, 4))) % len(words)
        found.append(" ".join(document))
    return found


def corpus(folder, words, *, seed=0):
    """Open such documents, a token a byte."""
    documents = sentences(words, seed=seed)
    folder.mkdir()
    for split, some in (("train", documents[:50]), ("validation", documents[50:])):
        lines = "".join(json.dumps({"text": each}) + "\n" for each in some)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return open_data(folder, tokenizer="bytes")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("continue")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(folder / "data"))
        yield folder


@pytest.fixture(scope="module")
def texts(place):
    """Two corpora of the same words, in two orders."""
    return {"own": corpus(place / "own", WORDS), "other": corpus(place / "other", ORDER, seed=1)}


@pytest.fixture(scope="module")
def parents(place, texts):
    """A toy of this library, and a Llama trained by a loop of torch's own and imported."""
    data = texts["own"]
    config = train_config(optimizer={}, device="cpu", steps=120, warmdown_steps=60, **SIZES)
    network = new_network(preset("demo", n_layer=2, d_model=16, vocab_size=257), seed=0)
    train(network, data, config, begin("own", network, data, config))

    shape = {"n_layer": 1, "d_model": 32, "feedforward_width": 64, "vocab_size": 257}
    llama = new_network(preset("llama", **shape), seed=0)
    optimizer = torch.optim.AdamW(llama.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=200)
    draw = np.random.default_rng(0)
    for _ in range(200):
        at = draw.integers(0, len(data.train.ids) - 33, size=8)
        rows = torch.from_numpy(data.train.ids[at[:, None] + np.arange(33)].astype(np.int64))
        logits = llama(rows[:, :-1]).flatten(0, 1)
        torch.nn.functional.cross_entropy(logits, rows[:, 1:].flatten()).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    write_huggingface(llama.eval(), place / "llama", sequence_length=32)
    theirs = read_foreign(place / "llama", tokenizer=str(place / "data/runs/own/tokenizer"))
    adopt("llama", theirs, data, path=place / "llama")
    return "own", "llama"


def continued(parent, data, *, watch=None, **settings):
    """Continue as the notebook does; return the score at the start and at each validation."""
    network = starting_point(preset("demo", parent=parent), seed=0, parent=parent)
    start = judge_start(network, data, sequence_length=32)
    given = {"device": "cpu", "validate_every": 5, **SIZES, **settings}
    config = train_config(optimizer={}, start=start, **given)
    run = begin("child", network, data, config, origin={"parent": parent}, replace=True)
    train(network, data, config, run, watch=watch)
    lines = read_jsonl(run.metrics)
    found = [x["validation_bits_per_byte"] for x in lines if "validation_bits_per_byte" in x]
    return start["bits_per_byte"], found, run


@pytest.mark.parametrize("parent", ["own", "llama"])
def test_defaults_never_harm_what_full_rates_undo(parents, texts, parent):
    short = {"steps": 30, "warmdown_steps": 10}
    start, gentle, run = continued(parent, texts["own"], **short)
    assert start < 1.5, "the parent knows its text"
    assert max(gentle) < start + 0.02, "never more than noise above where it began"
    used = run.record()["training"]
    assert used["learning_rate_factor"] < 1 and used["warmup_steps"] > 0, "and the record says so"
    rates = [line["learning_rate"] for line in read_jsonl(run.metrics)]
    assert max(rates) <= 0.04 * used["learning_rate_factor"] and rates[0] < rates[5]
    full = {"learning_rate_factor": 1.0, "warmup_steps": 0}
    assert max(continued(parent, texts["own"], **short, **full)[1]) > start + 0.05


@pytest.mark.parametrize("parent", ["own", "llama"])
def test_another_text_is_learned_from_the_first_validations_on(parents, texts, parent):
    start, scores, _ = continued(parent, texts["other"], steps=40, warmdown_steps=15)
    assert scores[1] < start - 0.02 and max(scores) < start
    assert scores[-1] < start - 0.1
    assert all(later < earlier + 0.05 for earlier, later in zip(scores, scores[1:], strict=False))


def test_a_run_of_500_steps_ends_below_the_floor(parents, texts):
    data, seen = texts["other"], []
    start, scores, run = continued(
        "llama", data, steps=500, warmdown_steps=150, validate_every=250, watch=seen.append
    )
    assert len(seen) == run.record()["steps_done"] == 500
    assert len(scores) == 2 and scores[-1] < min(FLOOR, start - 0.3)
    assert run.record()["status"] == "finished"


def test_a_nan_in_a_weight_aborts_a_continuation(parents, texts):
    network = starting_point(preset("demo", parent="llama"), seed=0, parent="llama")
    config = train_config(optimizer={}, device="cpu", steps=500, **SIZES)
    run = begin("broken", network, texts["own"], config, origin={"parent": "llama"})

    def plant(line):
        if line["step"] == 7:
            with torch.no_grad():
                network.blocks[0].mlp.fc.weight[0, 0] = float("nan")

    with pytest.raises(NonFiniteLoss, match=r"step 8: .*weight blocks\.0\.mlp\.fc\.weight"):
        train(network, texts["own"], config, run, watch=plant)
    assert run.record()["status"] == "failed" and len(read_jsonl(run.metrics)) == 7


def test_two_loads_are_equal_and_the_optimizer_knows_nothing(parents):
    config = preset("demo", parent="own")
    one, two = (starting_point(config, seed=seed, parent="own") for seed in (0, 1))
    assert all(torch.equal(state(two)[name], each) for name, each in state(one).items())
    for each in optimizers(one, train_config(optimizer={}).optimizer):
        assert not each.state, "no moments before the first step"
    assert one.head_weight is one.tok_emb.weight and all(p.requires_grad for p in one.parameters())


def test_weights_that_know_nothing_take_full_rates(place, texts):
    """A parent, or a file, of fresh weights: the official initial state is one."""
    fresh = create_run("fresh")
    save_model(new_network(preset("demo", n_layer=1, vocab_size=257), seed=0), fresh.path)
    fresh.update(data=texts["own"].identity())
    _, _, run = continued("fresh", texts["own"], steps=2, warmdown_steps=0)
    used = run.record()["training"]
    assert (used["learning_rate_factor"], used["warmup_steps"]) == (1.0, 0)
