"""The two gradients of a tied matrix: against an untied twin, and roles that agree or oppose."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from workbench.diagnostics import as_rows, sample
from workbench.diagnostics.role_conflict import DIAGNOSTIC, _gradients, role_conflict
from workbench.model import new_network, preset
from workbench.readings.role_conflict import role_conflict as reading


def batch(rows=6, length=12):
    ids = torch.randint(0, 257, (rows, length + 1), generator=torch.Generator().manual_seed(3))
    return ids[:, :-1], ids[:, 1:]


def test_gradients_are_those_of_an_untied_twin(tiny_network):
    inputs, targets = batch()
    found = role_conflict(tiny_network, as_rows(inputs, targets))
    twin = new_network(replace(tiny_network.config, tie_embeddings=False), seed=0)
    state = tiny_network.state_dict()
    twin.load_state_dict({**state, "lm_head.weight": state["tok_emb.weight"].clone()})
    F.cross_entropy(twin(inputs).flatten(0, 1), targets.flatten(), reduction="sum").backward()
    as_embedding = twin.tok_emb.weight.grad.double().numpy()
    as_head = twin.lm_head.weight.grad.double().numpy()
    sizes = np.linalg.norm(as_embedding), np.linalg.norm(as_head)
    cosine = (as_embedding * as_head).sum() / np.prod(sizes)
    assert float(found.cosine) == pytest.approx(cosine, rel=1e-5)
    assert float(found.embedding_share) == pytest.approx(sizes[0] / sum(sizes), rel=1e-5)
    rows = {"embedding_norm": as_embedding, "head_norm": as_head}
    for name, gradient in rows.items():
        expected = np.linalg.norm(gradient, axis=1) / targets.numel()
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-9)
    absent = ~np.isin(np.arange(257), inputs.numpy())
    assert np.isnan(found.token_cosine.values[absent]).all()
    assert found.attrs["tokens"] == targets.numel()


def test_the_sum_of_both_is_the_gradient_of_the_tied_matrix(tiny_network):
    inputs, targets = batch()
    both = _gradients(tiny_network, inputs, targets).sum(dim=0)
    loss = F.cross_entropy(tiny_network(inputs).flatten(0, 1), targets.flatten(), reduction="sum")
    (whole,) = torch.autograd.grad(loss, tiny_network.tok_emb.weight)
    torch.testing.assert_close(both.float(), whole, rtol=1e-4, atol=1e-5)
    assert tiny_network.tok_emb.weight.grad is None


def test_one_group_tells_no_error_and_no_verdict(tiny_network):
    inputs, targets = batch()
    group = np.zeros(inputs.shape, dtype=int)
    found = role_conflict(tiny_network, as_rows(inputs, targets, group=group))
    assert np.isnan(found.cosine_standard_error) and np.isfinite(found.cosine)
    assert reading(found).startswith("Not able to judge")


@pytest.mark.parametrize(
    ("cosine", "words"),
    [(0.0, "unrelated"), (0.5, "agree"), (-0.5, "untied head is worth a run")],
)
def test_verdict_follows_the_cosine(tiny_network, cosine, words):
    found = role_conflict(tiny_network, as_rows(*batch()))
    found["cosine"], found["cosine_standard_error"] = ((), cosine), ((), 0.02)
    assert words in reading(found)


def test_untied_network_has_no_conflict(tiny_data):
    config = preset("demo", n_layer=2, d_model=16, vocab_size=257, tie_embeddings=False)
    given = sample(new_network(config, seed=0), tiny_data, sequence_length=16)
    assert "not tied" in DIAGNOSTIC.lacks(given)
