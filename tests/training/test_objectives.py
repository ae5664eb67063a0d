"""Objectives: each term against a loop over positions, later tokens against a loop over offsets."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp
from torch import nn

from workbench.folder import InputError
from workbench.model import new_network, preset, state
from workbench.text import IGNORED
from workbench.text.token_classes import token_class
from workbench.training.objectives import (
    CrossEntropy,
    ObjectiveConfig,
    next_token_loss,
    objective_config,
    token_losses,
)

V, C = 257, 16


@pytest.fixture
def byte_ids(tiny_data):
    return tiny_data.tokenizer


@pytest.fixture
def make(byte_ids):
    """Return a function that makes an objective of byte tokens from plain settings."""

    def made(token_weights=None, **settings):
        config = objective_config(**settings)
        return CrossEntropy(config, d_model=C, tokenizer=byte_ids, token_weights=token_weights)

    return made


def some_ids(rows=3, length=9, *, seed=0, ignored=0.3):
    """Draw inputs and the targets that follow them, some not counted."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(0, V, (rows, length + 1))
    targets = np.where(draw.random((rows, length)) < ignored, IGNORED, ids[:, 1:])
    return torch.from_numpy(ids[:, :-1]), torch.from_numpy(targets)


def some_logits(rows=3, length=9, *, seed=1, scale=3.0):
    draw = np.random.default_rng(seed)
    return torch.from_numpy(draw.normal(0, scale, (rows, length, V)))


class Stub(nn.Module):
    """A model whose hidden state is a table of its ids, in float64."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(3)
        self.table = nn.Parameter(torch.randn(V, C, generator=draw, dtype=torch.float64))
        self.out = nn.Parameter(torch.randn(V, C, generator=draw, dtype=torch.float64))

    def hidden(self, ids):
        return self.table[ids]

    def head(self, hidden):
        return hidden @ self.out.T

    def forward(self, ids):
        return self.head(self.hidden(ids))


# --- plain cross-entropy ---------------------------------------------------------------------


@given(seed=st.integers(0, 99), ignored=st.sampled_from([0.0, 0.4, 1.0]))
def test_token_losses_are_scipys(seed, ignored):
    _, targets = some_ids(seed=seed, ignored=ignored)
    logits = some_logits(seed=seed)
    found = token_losses(logits, targets)
    surprisal = -log_softmax(logits.numpy(), axis=-1)
    for place, target in np.ndenumerate(targets.numpy()):
        expected = 0.0 if target == IGNORED else surprisal[(*place, target)]
        assert float(found[place]) == pytest.approx(expected, rel=1e-12)


def test_half_precision_logits_are_summed_in_float32():
    _, targets = some_ids()
    logits = some_logits().bfloat16()
    found = token_losses(logits, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, token_losses(logits.float(), targets), rtol=0, atol=0)


def test_nothing_added_is_plain_bit_for_bit(tiny_network, make):
    """Whatever is off costs no bit, neither of the loss nor of a gradient."""
    inputs, targets = some_ids()

    def gradients(objective):
        tiny_network.zero_grad()
        answer = objective(tiny_network, inputs, targets)
        trained, plain = answer if isinstance(answer, tuple) else (answer, answer)
        trained.backward()
        grads = [parameter.grad.clone() for parameter in tiny_network.parameters()]
        return [trained.detach(), plain.detach(), *grads]

    expected = gradients(next_token_loss)
    ones = make(class_weights={"word_start": 1.0}, token_weights=torch.ones(V))
    for objective in (make(), ones, make(future_weight=7.0)):
        pairs = zip(gradients(objective), expected, strict=True)
        assert all(torch.equal(own, theirs) for own, theirs in pairs)


# --- what is added ---------------------------------------------------------------------------


def test_z_loss_by_hand(make):
    inputs, targets = some_ids()
    logits = some_logits()
    trained, plain = make(z_loss=0.02).summed(logits, inputs, targets)
    z = logsumexp(logits.numpy(), axis=-1)
    squares = sum(z[place] ** 2 for place, t in np.ndenumerate(targets.numpy()) if t != IGNORED)
    assert float(trained - plain) == pytest.approx(0.02 * squares, rel=1e-12)
    assert float(plain) == pytest.approx(float(token_losses(logits, targets).sum()))


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_label_smoothing_is_torchs_and_a_loop(make, share):
    inputs, targets = some_ids()
    logits = some_logits()
    trained, plain = make(label_smoothing=share).summed(logits, inputs, targets)
    theirs = nn.CrossEntropyLoss(ignore_index=IGNORED, reduction="sum", label_smoothing=share)
    assert float(trained) == pytest.approx(float(theirs(logits.flatten(0, 1), targets.flatten())))
    total, surprisal = 0.0, -log_softmax(logits.numpy(), axis=-1)
    for place, target in np.ndenumerate(targets.numpy()):
        if target != IGNORED:
            wanted = np.full(V, share / V)
            wanted[target] += 1 - share
            total += float(wanted @ surprisal[place])
    assert float(trained) == pytest.approx(total, rel=1e-12)
    assert float(plain) == pytest.approx(float(token_losses(logits, targets).sum()))


def test_class_weights_are_those_of_the_table_in_the_text(make, byte_ids):
    """A letter after a space starts a word; the same letter after a letter continues one."""
    text = "a cab, 42\nbad \u00e9a. "
    ids = torch.from_numpy(byte_ids.encode(text).astype(np.int64))[None]
    inputs, targets = ids[:, :-1], ids[:, 1:].clone()
    targets[0, 3] = IGNORED
    given_weights = {"word_start": 5.0, "continuation": 0.5, "digit": 0.0, "byte": 3.0}
    logits = some_logits(1, inputs.shape[1])
    trained, _ = make(class_weights=given_weights).summed(logits, inputs, targets)
    losses, total, met = token_losses(logits, targets), 0.0, set()
    for t, target in enumerate(targets[0].tolist()):
        if target != IGNORED:
            before, kind = int(inputs[0, t]), token_class(byte_ids.token_bytes[target])
            opens = byte_ids.boundary[before] or byte_ids.token_bytes[before].isspace()
            kind = "word_start" if kind == "continuation" and opens else kind
            met.add(kind)
            total += given_weights.get(kind, 1.0) * float(losses[0, t])
    assert met >= {"word_start", "continuation", "digit", "byte", "punctuation"}
    assert float(trained) == pytest.approx(total, rel=1e-6)


def test_token_weights_multiply_those_of_classes_and_smoothing_and_z(make):
    inputs, targets = some_ids()
    logits = some_logits()
    weights = torch.rand(V, generator=torch.Generator().manual_seed(0)) + 0.5
    settings = {"z_loss": 0.01, "label_smoothing": 0.2}
    trained, plain = make(weights, **settings).summed(logits, inputs, targets)
    total = 0.0
    for row in range(3):
        for t in range(9):
            if targets[row, t] != IGNORED:
                one = (inputs[row, t].view(1, 1), targets[row, t].view(1, 1))
                alone, _ = make(**settings).summed(logits[row, t].view(1, 1, V), *one)
                total += float(weights[targets[row, t]]) * float(alone)
    assert float(trained) == pytest.approx(total, rel=1e-6)
    assert float(plain) == float(make().summed(logits, inputs, targets)[1]), "never weighted"


def test_gradients_of_every_term(make):
    inputs, targets = some_ids(1, 3, ignored=0.0)
    targets[0, 1] = IGNORED
    objective = make(z_loss=0.1, label_smoothing=0.1, class_weights={"byte": 2.0})
    logits = some_logits(1, 3, scale=1.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective.summed(z, inputs, targets)[0], [logits])


def test_nothing_counted_is_no_loss_and_no_gradient(tiny_network, make):
    inputs, targets = some_ids(ignored=1.0)
    objective = make(
        z_loss=0.1, label_smoothing=0.1, future_tokens=2, class_weights={"control": 9.0}
    )
    trained, plain = objective(tiny_network, inputs, targets)
    trained.backward()
    assert trained == 0 and plain == 0
    assert not any(parameter.grad.any() for parameter in tiny_network.parameters())


# --- later tokens ----------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "length"), [(1, 9), (3, 9), (3, 3), (3, 1)])
def test_later_tokens_are_a_loop_over_offsets(make, heads, length):
    model, (inputs, targets) = Stub(), some_ids(2, length)
    objective = make(future_tokens=heads, future_weight=0.7, label_smoothing=0.1).double()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for matrix in objective.mtp_heads:
            matrix.normal_(generator=draw)
    trained, plain = objective(model, inputs, targets)
    trained.backward()
    found = [p.grad.clone() for p in (*model.parameters(), *objective.parameters())]
    model.zero_grad()
    objective.zero_grad()

    smoothed = nn.CrossEntropyLoss(label_smoothing=0.1)
    total = 0 * model.table.sum()
    for row in range(2):
        for t in range(length):
            state_here = model.table[inputs[row, t]]
            for offset in range(heads + 1):
                if t + offset < length and targets[row, t + offset] != IGNORED:
                    matrix = objective.mtp_heads[offset - 1] if offset else torch.eye(C).double()
                    one = smoothed(model.out @ (matrix @ state_here), targets[row, t + offset])
                    total = total + (0.7 / heads if offset else 1.0) * one
    total.backward()
    assert float(trained.detach()) == pytest.approx(float(total.detach()), rel=1e-12)
    alone = next_token_loss(model, inputs, targets).detach()
    assert float(plain) == pytest.approx(float(alone), rel=1e-12)
    for own, each in zip(found, (*model.parameters(), *objective.parameters()), strict=True):
        theirs = torch.zeros_like(own) if each.grad is None else each.grad
        torch.testing.assert_close(own, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("tied", [True, False])
def test_heads_learn_at_once_and_stay_out_of_the_model(make, tied):
    """From fresh weights, whose head and projections are 0; an untied head delays them by one."""
    config = preset("demo", n_layer=2, d_model=C, vocab_size=V, tie_embeddings=tied)
    network = new_network(config, seed=0)
    names, before = set(state(network)), torch.get_rng_state()
    objective = make(future_tokens=2)
    assert torch.equal(torch.get_rng_state(), before), "nothing is drawn"
    assert list(dict(objective.named_parameters())) == ["mtp_heads.0", "mtp_heads.1"]
    assert set(objective.state_dict()) == {"mtp_heads.0", "mtp_heads.1"}
    sgd = torch.optim.SGD([*network.parameters(), *objective.parameters()], lr=1e-3)
    for step in range(2):
        sgd.zero_grad()
        objective(network, *some_ids())[0].backward()
        learning = [bool(matrix.grad.any()) for matrix in objective.mtp_heads]
        assert all(learning) if tied or step else not any(learning)
        sgd.step()
    assert not torch.equal(objective.mtp_heads[0], objective.mtp_heads[1])
    assert set(state(network)) == names, "a checkpoint or an export holds none of them"


def test_later_tokens_under_autocast(tiny_network, make):
    objective = make(future_tokens=2)
    whole = objective(tiny_network, *some_ids())[0]
    with torch.autocast("cpu", torch.bfloat16):
        half = objective(tiny_network, *some_ids())[0]
    assert float(half.detach()) == pytest.approx(float(whole.detach()), rel=0.02)


# --- settings --------------------------------------------------------------------------------


def test_settings_come_back():
    given_settings = {"z_loss": 1e-4, "class_weights": {"digit": 2}, "future_tokens": 1}
    found = objective_config(**given_settings)
    assert (found.z_loss, found.class_weights["digit"], found.future_tokens) == (1e-4, 2, 1)
    assert objective_config() == ObjectiveConfig()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"zloss": 0.1}, "z_loss"),
        ({"class_weights": {"word": 2.0}}, "word_start"),
        ({"class_weights": 2.0}, "token class"),
        ({"class_weights": {"digit": -1.0}}, "digit"),
        ({"z_loss": "1e-4"}, "0.001"),
        ({"z_loss": True}, "z_loss=True"),
        ({"z_loss": math.nan}, "z_loss=nan"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"future_tokens": 1.5}, "future_tokens=1.5"),
        ({"future_tokens": -1}, "future_tokens=-1"),
    ],
)
def test_settings_that_are_refused(settings, told):
    with pytest.raises(InputError, match=told):
        objective_config(**settings)
