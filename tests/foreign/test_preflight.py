"""Tokenizer sizes, and the loss before the first step of loaded, fresh and damaged networks."""

import math

import pytest
import tokenizers
import torch
import torch.nn.functional as F
from huggingface_models import rewrite

from workbench.folder import InputError
from workbench.foreign import (
    ArchMismatch,
    init_loss_verdict,
    preflight_tokenizer,
    read_huggingface,
    write_huggingface,
)
from workbench.model import new_network, preset
from workbench.text import load_tokenizer


@pytest.fixture
def tokenizer_of(tmp_path):
    """Make a tokenizer.json with a number of ids, one of them special."""

    def make(size):
        vocab = {chr(0x4E00 + i): i for i in range(size - 1)}
        made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
        made.decoder = tokenizers.decoders.ByteLevel()
        made.add_special_tokens(["<s>"])
        made.save(str(tmp_path / "tokenizer.json"))
        return tmp_path / "tokenizer.json"

    return make


def rows(vocab_size):
    return preset("llama", vocab_size=vocab_size)


def test_equal_sizes_pass_in_both_modes(tokenizer_of):
    path = tokenizer_of(300)
    for from_scratch in (True, False):
        found = preflight_tokenizer(path, rows(300), from_scratch=from_scratch)
        assert (found["tokenizer_size"], found["vocab_size"], found["note"]) == (300, 300, "")


def test_a_checkpoint_may_reserve_rows_and_a_fresh_model_may_not(tokenizer_of):
    path = tokenizer_of(300)
    assert preflight_tokenizer(path, rows(303))["note"] == ""
    with pytest.raises(ArchMismatch, match=r"300.*exactly 303.*from scratch.*arch-006") as caught:
        preflight_tokenizer(path, rows(303), from_scratch=True, model_path="some/model")
    assert caught.value.rule_id == "arch-006"
    assert str(path) in str(caught.value) and "some/model" in str(caught.value)


@pytest.mark.parametrize(("from_scratch", "rule"), [(True, "arch-006"), (False, "arch-010")])
@pytest.mark.parametrize("loaded", [True, False])
def test_both_paths_and_both_sizes_are_named(tokenizer_of, from_scratch, rule, loaded):
    path = tokenizer_of(300)
    given = {"tokenizer_path": path} if loaded else {}
    with pytest.raises(ArchMismatch) as caught:
        preflight_tokenizer(
            load_tokenizer(path) if loaded else path,
            rows(299),
            from_scratch=from_scratch,
            model_path="some/model",
            **given,
        )
    assert caught.value.rule_id == rule and caught.value.where == str(path)
    for each in (str(path), "some/model", "300", "299"):
        assert each in str(caught.value)


@pytest.mark.parametrize("from_scratch", [True, False])
def test_a_tokenizer_larger_than_the_model_never_passes(tokenizer_of, from_scratch):
    with pytest.raises(ArchMismatch, match=r"300.*299") as caught:
        preflight_tokenizer(tokenizer_of(300), rows(299), from_scratch=from_scratch)
    assert caught.value.rule_id == ("arch-006" if from_scratch else "arch-010")


def test_large_slack_is_noted(tokenizer_of):
    assert "600 of 900" in preflight_tokenizer(tokenizer_of(300), rows(900))["note"]


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(InputError, match="no file"):
        preflight_tokenizer(tmp_path / "tokenizer.json", rows(300))


# --- the loss before the first step ----------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "scratch", "passed", "absolute", "diagnosis"),
    [
        (3.0, None, True, True, "loaded"),
        (3.0, 10.9, True, True, "loaded"),
        (5.9, 10.9, True, True, "loaded"),
        (6.1, 10.9, False, False, "in part"),
        (5.0, 7.9, False, False, "in part"),  # the fresh network is not one
        (10.8, 10.9, False, False, "not loaded"),
        (14.0, 10.9, False, False, "computed wrongly"),
        (math.nan, 10.9, False, False, "computed wrongly"),
    ],
)
def test_the_rule_at_the_vocabulary_it_was_made_for(loss, scratch, passed, absolute, diagnosis):
    found = init_loss_verdict(loss, vocab_size=50257, scratch=scratch)
    assert (found["passed"], found["absolute"]) == (passed, absolute)
    assert diagnosis in found["diagnosis"]


def test_the_rule_scales_with_the_vocabulary():
    assert init_loss_verdict(0.54 * math.log(257), vocab_size=257)["passed"]
    found = init_loss_verdict(0.9 * math.log(257), vocab_size=257)
    assert not found["passed"] and found["absolute"], "6.0 nat says nothing of 257 tokens"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a small Llama to continue sequences of period 7, save it, return folder and loss."""
    network = new_network(
        preset("llama", vocab_size=64, d_model=32, n_layer=3, feedforward_width=64), seed=0
    )
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(150):
        loss = loss_of(network, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("trained")
    write_huggingface(network.eval(), folder)
    return folder, at_start(network)


def loss_of(network, generator):
    rows = torch.randint(0, 64, (8, 1), generator=generator)
    step = torch.randint(1, 4, (8, 1), generator=generator)
    ids = (rows + step * torch.arange(25)) % 64  # each row counts by a step of its own
    return F.cross_entropy(network(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def at_start(network):
    with torch.no_grad():
        return float(loss_of(network, torch.Generator().manual_seed(9)))


def test_a_trained_network_keeps_its_loss_and_passes(trained):
    folder, loss = trained
    network = read_huggingface(folder).network
    fresh = at_start(new_network(network.config, seed=1))
    assert at_start(network) == pytest.approx(loss, abs=1e-6)
    assert init_loss_verdict(loss, vocab_size=64, scratch=fresh)["passed"]
    assert not init_loss_verdict(fresh, vocab_size=64, scratch=fresh)["passed"]


def test_permuted_layers_are_seen(trained, tmp_path):
    folder, loss = trained
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())

    def rotate(tensors):
        moved = {
            name.replace(f"layers.{at}.", f"layers.{(at + 1) % 3}."): tensors.pop(name)
            for at in range(3)
            for name in list(tensors)
            if f"layers.{at}." in name
        }
        tensors.update(moved)

    rewrite(tmp_path, rotate)
    jumped = at_start(read_huggingface(tmp_path).network)
    assert jumped > loss + 1 and not init_loss_verdict(jumped, vocab_size=64)["passed"]
