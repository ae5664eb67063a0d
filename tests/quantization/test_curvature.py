"""Curvature against slow routes: one token at a time, and the exact Fisher information."""

import pytest
import torch
import torch.nn.functional as F

from workbench.model import new_network, preset, record
from workbench.quantization.curvature import Curvature, curvature, joined


@pytest.fixture(scope="module")
def network():
    """A small network with every weight away from zero, so that gradients flow."""
    made = new_network(
        preset("demo", n_layer=2, d_model=16, vocab_size=40, tie_embeddings=False), seed=0
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for each in made.parameters():
            each.add_(0.2 * torch.randn(each.shape, generator=generator))
    return made


def rows(n=24, length=12, seed=2):
    return torch.randint(0, 40, (n, length), generator=torch.Generator().manual_seed(seed))


def test_head_is_the_exact_fisher_information(network):
    """Of the head it is known: ``p (1 - p)`` of every row, beyond the softcap's slope."""
    ids = rows(200)
    found = curvature(network, ids)["lm_head.weight"]
    with torch.no_grad():
        hidden = network.hidden(ids)
        z = F.linear(hidden, network.lm_head.weight)
        p = network.capped(z).softmax(dim=-1)
        slope = 1 - torch.tanh(z / 30) ** 2
    exact = (p * (1 - p) * slope**2).flatten(0, 1).double().mean(dim=0)
    torch.testing.assert_close(found.output, exact, rtol=0.35, atol=3e-3)
    assert float(found.output.sum()) == pytest.approx(float(exact.sum()), rel=0.02)
    states = hidden.flatten(0, 1).double()
    torch.testing.assert_close(found.input, states.T @ states / len(states), rtol=1e-5, atol=1e-6)
    assert found.tokens == 2400


def test_input_factor_is_the_mean_outer_product(network):
    ids = rows()
    found = curvature(network, ids)
    with record(network, ["visit.1.feedforward_hidden"]) as seen, torch.no_grad():
        network(ids)
    x = seen["visit.1.feedforward_hidden"].flatten(0, 1).double()
    expected = torch.stack([torch.outer(each, each) for each in x]).mean(dim=0)
    taken = found["blocks.1.mlp.proj.weight"].input  # batches in float32
    torch.testing.assert_close(taken, expected, rtol=1e-5, atol=1e-6)


def test_output_factor_is_the_mean_squared_gradient(network):
    """At the last write, a token's gradient depends on its own target alone."""
    ids = rows(100)
    found = curvature(network, ids)["blocks.1.mlp.proj.weight"]
    total = torch.zeros(16, dtype=torch.float64)
    with record(network, ["residual_out"]) as seen:
        logits = network(ids)
        p = logits.detach().softmax(dim=-1)
        for token in range(40):  # every target, weighed by how likely it is
            network.zero_grad()
            loss = F.cross_entropy(
                logits.flatten(0, 1), torch.full((ids.numel(),), token), reduction="none"
            )
            weighed = (loss * p[..., token].flatten().sqrt()).sum()
            (g,) = torch.autograd.grad(weighed, [seen["residual_out"]], retain_graph=True)
            total += g.flatten(0, 1).double().square().sum(dim=0)
    expected = total / ids.numel() * network.blocks[1].mlp_scale.detach().double() ** 2
    torch.testing.assert_close(found.output, expected, rtol=0.15, atol=0)


def test_predicted_cost_is_what_a_small_change_costs(network):
    """A change of the head moves the loss, averaged over the model's own targets, by its KL."""
    ids = rows(100)
    bend = curvature(network, ids)["lm_head.weight"]
    generator = torch.Generator().manual_seed(5)
    change = 0.02 * torch.randn(40, 16, generator=generator)
    with torch.no_grad():
        hidden = network.hidden(ids)
        weight = network.lm_head.weight
        before = network.capped(F.linear(hidden, weight)).log_softmax(-1)
        after = network.capped(F.linear(hidden, weight + change)).log_softmax(-1)
    kl = float((before.exp() * (before - after)).sum(-1).mean())
    assert bend.cost(change) == pytest.approx(kl, rel=0.15)


def test_a_model_is_left_as_it_was(network):
    before = {name: each.clone() for name, each in network.state_dict().items()}
    found = curvature(network, rows(4))
    assert all(torch.equal(before[n], each) for n, each in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    matrices = {n for n, each in network.named_parameters() if n.endswith(".weight")}
    assert set(found) == matrices
    again = curvature(network, rows(4))
    assert all(torch.equal(found[n].output, again[n].output) for n in found)


def test_tied_roles_add_up():
    one = Curvature(input=torch.eye(3).double(), output=torch.ones(5).double(), tokens=9)
    none = Curvature(input=torch.eye(3).double(), output=torch.zeros(5).double(), tokens=9)
    change = torch.ones(5, 3)
    assert joined(one, none).cost(change) == pytest.approx(one.cost(change))
    twice = Curvature(input=one.input, output=2 * one.output, tokens=9)
    assert joined(one, twice).cost(change) == pytest.approx(3 * one.cost(change))
