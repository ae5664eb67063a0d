import importlib

import numpy as np
import pytest
import torch

from workbench.diagnostics import self_test
from workbench.model import Network, new_network, preset
from workbench.text import Tokens, byte_tokenizer
from workbench.text.vocabulary import Tokenizer

MODULE = importlib.import_module("workbench.diagnostics.self_test")
LENGTH = 24
BYTES = byte_tokenizer()
FORWARD = Network.forward
CHECKS = (
    "causality",
    "batch_invariance",
    "padding_invariance",
    "repeatability",
    "saved_is_reloaded",
    "tied_is_one",
    "probabilities_sum_to_one",
    "classes_sum_to_total",
    "bytes_are_exact",
    "targets_scored_once",
)


def make_model(**fields):
    shape = {"n_layer": 2, "n_head": 2, "n_kv_head": 1, "d_model": 32, "vocab_size": 257}
    model = new_network(preset("demo", **shape, **fields), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for matrix in model.matrices():
            matrix.weight.normal_(0, 0.2, generator=generator)
    return model.eval()


def make_tokens(tokenizer=BYTES, *, n_document=6):
    text = "A cat sat on 12 mats, and \u00e9t\u00e9 came.\n"
    parts = [[tokenizer.bos, *tokenizer.encode(text * (1 + n))] for n in range(n_document)]
    starts = np.cumsum([0, *map(len, parts)])[:-1]
    return Tokens(ids=np.concatenate(parts).astype(np.int32), starts=starts.astype(np.int64))


def failures(model=None, *, tokens=None, tokenizer=BYTES):
    found = self_test(
        model or make_model(), tokens or make_tokens(), tokenizer, sequence_length=LENGTH
    )
    return set(found.check.values[~found.passed.values])


def test_healthy_model_passes_every_check():
    for fields in ({}, {"tie_embeddings": False}, {"output_bias": True}, {"value_residual": None}):
        assert failures(make_model(**fields)) == set()


def test_every_check_has_its_number_and_limit():
    found = self_test(make_model(), make_tokens(), BYTES, sequence_length=LENGTH)
    assert tuple(found.check.values) == CHECKS
    np.testing.assert_array_equal(found.passed, found.value <= found.limit)
    assert all(found.meaning.values)


def peeking(self, ids):
    """Let each position see the next token."""
    logits = FORWARD(self, ids).clone()
    logits[:, :-1] += 0.1 * logits[:, 1:]
    return logits


def crowded(self, ids):
    """Let each row see the others."""
    logits = FORWARD(self, ids)
    return logits + 0.1 * logits.mean(dim=0)


def length_bound(self, ids):
    """Let the logits depend on how long the row is."""
    return FORWARD(self, ids) * (1 + ids.shape[1] / 100)


def noisy(self, ids):
    """Add a little noise."""
    logits = FORWARD(self, ids)
    return logits + 1e-6 * torch.randn(logits.shape)


def deaf(self, ids):
    """Ignore the input."""
    return torch.zeros(*ids.shape, 257)


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        # What sees the next token also sees the padding there, and noise also parts two copies.
        (peeking, {"causality", "padding_invariance"}),
        (crowded, {"batch_invariance"}),
        (length_bound, {"padding_invariance"}),
        (noisy, {"repeatability", "saved_is_reloaded"}),
        (deaf, {"causality"}),
    ],
)
def test_planted_fault_of_the_forward_pass(monkeypatch, forward, expected):
    monkeypatch.setattr(Network, "forward", forward)
    assert failures() == expected


@pytest.mark.parametrize("distance", [1, 5, LENGTH // 2])
def test_a_leak_from_any_distance_is_seen(monkeypatch, distance):
    def forward(self, ids):
        logits = FORWARD(self, ids).clone()
        logits[:, :-distance] += 1e-3 * logits[:, distance:]
        return logits

    monkeypatch.setattr(Network, "forward", forward)
    assert "causality" in failures()


def test_rows_that_mix_are_seen_in_a_split_of_one_row(monkeypatch):
    tokens = make_tokens(n_document=1)
    tokens = Tokens(ids=tokens.ids[: LENGTH + 1], starts=tokens.starts)
    assert failures(tokens=tokens) == set()
    monkeypatch.setattr(Network, "forward", crowded)
    assert failures(tokens=tokens) == {"batch_invariance"}


def test_state_that_is_not_saved():
    model = make_model()
    model.blocks[1].attn.rotary.frequency.mul_(1.01)
    assert failures(model) == {"saved_is_reloaded"}


def test_head_that_should_be_tied(monkeypatch):
    monkeypatch.setattr(Network, "head_weight", property(lambda self: self.tok_emb.weight.clone()))
    assert failures() == {"tied_is_one"}


def test_head_that_should_not_be_tied(monkeypatch):
    model = make_model(tie_embeddings=False)
    monkeypatch.setattr(Network, "head_weight", property(lambda self: self.tok_emb.weight))
    assert failures(model) == {"tied_is_one"}


class CountsSpacesTwice(Tokenizer):
    """The classic fault of byte counts."""

    def byte_counts(self, ids, previous):
        return super().byte_counts(ids, previous) + self.space_led[np.asarray(ids)]


def test_bytes_counted_twice():
    wrong = CountsSpacesTwice(**vars(byte_tokenizer()))
    assert failures(tokenizer=wrong) == {"bytes_are_exact"}


def test_windows_that_score_a_target_twice(monkeypatch):
    honest = MODULE.windows

    def windows(*arguments, **options):
        rows = list(honest(*arguments, **options))
        yield from (*rows, rows[-1])

    monkeypatch.setattr(MODULE, "windows", windows)
    assert failures() == {"targets_scored_once"}


def test_a_class_that_is_left_out(monkeypatch):
    honest = MODULE.token_loss
    monkeypatch.setattr(
        MODULE, "token_loss", lambda table: honest(table).drop_sel(token_class="digit")
    )
    assert failures() == {"classes_sum_to_total"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["everywhere", "one logit"])
def test_logits_that_are_not_finite_never_pass(monkeypatch, value, where):
    def forward(self, ids):
        logits = FORWARD(self, ids).clone()
        logits[(...,) if where == "everywhere" else (-1, -1, 0)] = value
        return logits

    monkeypatch.setattr(Network, "forward", forward)
    failed = failures()
    assert {"causality", "repeatability", "probabilities_sum_to_one"} <= failed
    assert {"saved_is_reloaded", "batch_invariance", "classes_sum_to_total"} <= failed


def test_model_is_left_as_it_was():
    model = make_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    failures(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
