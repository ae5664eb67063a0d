"""Optimizers: the published update matrix by matrix, and no parameter left out."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from workbench.folder import InputError
from workbench.model import PRESETS, Network, new_network, preset
from workbench.training import Muon, OptimizerConfig, optimizer_config, optimizers, orthogonalize

SMALL = {"n_layer": 3, "n_head": 4, "n_kv_head": 2, "d_model": 16, "vocab_size": 20}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- orthogonalize ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24), (1, 6), (6, 1), (1, 1)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6])
def test_singular_values_near_one_and_vectors_kept(shape, scale):
    matrix = scale * draw(*shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.mT @ orthogonalize(matrix, dtype=torch.float64) @ right.mT
    found = inner.diagonal()
    assert (inner - torch.diag(found)).abs().max() < 1e-6, "the same singular vectors"
    # A lone tiny singular value among large ones needs more than five iterations.
    large = torch.linalg.svdvals(matrix) > 0.02 * torch.linalg.matrix_norm(matrix)
    assert (found[large] > 0.6).all() and (found < 1.3).all()


def test_the_quintic_by_hand():
    """A diagonal matrix is a polynomial in each singular value, apart from the others."""
    values = torch.tensor([0.9, 0.3, 0.1], dtype=torch.float64)
    x = values / values.square().sum().sqrt()
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    found = orthogonalize(torch.diag(values), dtype=torch.float64)
    torch.testing.assert_close(found, torch.diag(x), atol=1e-6, rtol=0)


def test_a_batch_is_its_matrices_and_zero_stays_zero():
    stack = draw(3, 5, 9)
    together = orthogonalize(stack, dtype=torch.float64)
    apart = torch.stack([orthogonalize(each, dtype=torch.float64) for each in stack])
    torch.testing.assert_close(together, apart)
    assert not orthogonalize(torch.zeros(4, 4)).any()


def test_bfloat16_is_a_coarser_same():
    exact, rough = orthogonalize(draw(16, 16)), orthogonalize(draw(16, 16), dtype=torch.bfloat16)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() < 0.1


# --- Muon ------------------------------------------------------------------------------------


def published(weight, gradients, *, lr, momentum):
    """Follow the published update for one matrix, in its own words."""
    buffer = torch.zeros_like(weight)
    for gradient in gradients:
        buffer = momentum * buffer + gradient
        g = gradient + momentum * buffer
        x = g / (g.norm() + 1e-7)
        if g.size(0) > g.size(1):
            x = x.T
        for _ in range(5):
            a = x @ x.T
            b = -4.7750 * a + 2.0315 * a @ a
            x = 3.4445 * x + b @ x
        if g.size(0) > g.size(1):
            x = x.T
        weight = weight - lr * max(1, g.size(0) / g.size(1)) ** 0.5 * x
    return weight


def test_muon_is_the_published_update_matrix_by_matrix():
    shapes = [(6, 6), (12, 6), (6, 12), (12, 6), (6, 12), (6, 6), (3, 7)]
    starts = [draw(*shape, seed=index) for index, shape in enumerate(shapes)]
    steps = [[draw(*s, seed=100 * t + i) for i, s in enumerate(shapes)] for t in range(1, 5)]
    weights = [nn.Parameter(start.clone()) for start in starts]
    muon = Muon(weights, lr=0.03, momentum=0.9, dtype=torch.float64)
    for gradients in steps:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.clone()
        muon.step()
    for index, weight in enumerate(weights):
        expected = published(starts[index], [g[index] for g in steps], lr=0.03, momentum=0.9)
        torch.testing.assert_close(weight.data, expected)


def test_a_matrix_without_gradient_stays():
    used, unused = nn.Parameter(draw(4, 4)), nn.Parameter(draw(4, 4, seed=1))
    used.grad = draw(4, 4, seed=2)
    before = unused.detach().clone()
    Muon([used, unused], lr=0.1).step()
    assert torch.equal(unused, before) and not torch.equal(used, draw(4, 4))


def test_muon_leaves_gradients_as_they_were():
    weight = nn.Parameter(draw(4, 6))
    weight.grad = draw(4, 6, seed=2)
    Muon([weight], lr=0.1).step()
    assert torch.equal(weight.grad, draw(4, 6, seed=2))


def test_muon_continues_from_its_saved_state():
    def trained(restart):
        weight = nn.Parameter(draw(4, 6))
        muon = Muon([weight], lr=0.1)
        for step in range(4):
            if restart and step == 2:
                saved, muon = muon.state_dict(), Muon([weight], lr=0.1)
                muon.load_state_dict(saved)
            weight.grad = draw(4, 6, seed=step + 1)
            muon.step()
        return weight.detach()

    assert torch.equal(trained(True), trained(False))


# --- groups ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tied", "bias", "mechanism", "n_layer"),
    [*itertools.product([True, False], [True, False], [None, True], [3]), (True, False, True, 1)],
)
def test_every_parameter_is_in_exactly_one_group(tied, bias, mechanism, n_layer):
    network = new_network(
        preset(
            "baseline",
            **{**SMALL, "n_layer": n_layer},
            tie_embeddings=tied,
            output_bias=bias,
            value_residual=mechanism,
        ),
        seed=0,
    )
    config = OptimizerConfig()
    muon, adam = optimizers(network, config)
    groups = [*muon.param_groups, *adam.param_groups]
    placed = [id(p) for group in groups for p in group["params"]]
    assert sorted(placed) == sorted(id(p) for p in network.parameters())

    names = {id(p): name for name, p in network.named_parameters()}
    rate = {names[id(p)]: group["base_lr"] for group in groups for p in group["params"]}
    assert all(group["lr"] == group["base_lr"] for group in groups)
    matrices = {names[id(p)] for p in muon.param_groups[0]["params"]}
    expected = ("c_q", "c_k", "c_v", "proj", "fc")
    assert matrices == {
        n for n in names.values() if n.endswith(".weight") and n.split(".")[-2] in expected
    }
    assert len(matrices) == 6 * n_layer
    assert rate["tok_emb.weight"] == (0.05 if tied else 0.6)
    assert rate["blocks.0.attn.c_q.weight"] == rate["blocks.0.resid_mix"] == 0.04
    assert rate["skip_weights"] == 0.04
    assert tied or rate["lm_head.weight"] == 0.008
    adam_group = adam.param_groups[0]
    assert adam_group["betas"] == (0.9, 0.95) and adam_group["eps"] == 1e-8
    assert adam_group["weight_decay"] == 0


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_no_forgotten_parameter(name):
    with torch.device("meta"):
        network = Network(PRESETS[name])
    muon, adam = optimizers(network, OptimizerConfig())
    groups = [*muon.param_groups, *adam.param_groups]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    matrices = 7 if PRESETS[name].feedforward == "swiglu" else 6
    assert len(muon.param_groups[0]["params"]) == matrices * PRESETS[name].n_layer


@pytest.mark.parametrize("where", ["root", "in a block"])
def test_a_new_parameter_is_not_silently_frozen(where):
    network = new_network(preset("baseline", **SMALL), seed=0)
    planted = nn.Parameter(torch.ones(3))
    if where == "root":
        network.smear_gate = planted
        with pytest.raises(ValueError, match="smear_gate"):
            optimizers(network, OptimizerConfig())
        return
    network.blocks[0].gate = planted
    groups = [
        group for each in optimizers(network, OptimizerConfig()) for group in each.param_groups
    ]
    assert any(p is planted for group in groups for p in group["params"])


def test_every_group_moves():
    network = new_network(
        preset("baseline", **SMALL, tie_embeddings=False, output_bias=True, value_residual=True),
        seed=0,
    )
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    for each in optimizers(network, OptimizerConfig()):
        each.step()
    assert all(not torch.equal(p, before[name]) for name, p in network.named_parameters())


# --- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.85), (125, 0.875), (250, 0.9), (500, 0.95), (9000, 0.95)]
)
def test_momentum_ramp(step, expected):
    assert OptimizerConfig().momentum_at(step) == pytest.approx(expected)


def test_no_ramp_is_full_momentum():
    assert OptimizerConfig(momentum_warmup_steps=0).momentum_at(0) == 0.95


@given(st.integers(0, 2000), st.integers(0, 1000))
def test_momentum_stays_between_its_ends(step, length):
    config = OptimizerConfig(momentum_warmup_steps=length)
    here, later = config.momentum_at(step), config.momentum_at(step + 1)
    assert 0.85 - 1e-12 <= here <= later + 1e-12 and later <= 0.95 + 1e-12


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(InputError, match="Nearest: momentum_warmup_steps"):
        optimizer_config(momentum_warmup=3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("matrix_lr", -0.1),
        ("matrix_lr", float("nan")),
        ("scalar_lr", float("inf")),
        ("matrix_lr", "fast"),
        ("newton_schulz_dtype", "float16"),
        ("momentum", None),
    ],
)
def test_wrong_values_are_named(key, value):
    with pytest.raises(InputError, match=key):
        optimizer_config(**{key: value})


def test_newton_schulz_dtype_reaches_muon():
    network = new_network(preset("baseline", **SMALL), seed=0)
    for name, expected in (
        ("auto", None),
        ("bfloat16", torch.bfloat16),
        ("float32", torch.float32),
    ):
        muon, _ = optimizers(network, OptimizerConfig(newton_schulz_dtype=name))
        assert muon.param_groups[0]["dtype"] == expected
