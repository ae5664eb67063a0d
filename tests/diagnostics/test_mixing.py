"""Mixing scalars against models edited by hand; planted dead and needed ones; what is decided."""

import copy

import numpy as np
import pytest
import torch

from workbench.diagnostics import as_rows, mixing, scalars
from workbench.diagnostics.mixing import decided, gradient_shares
from workbench.model import new_network, preset
from workbench.result import check

ROWS, LENGTH = 8, 12


def network(*, n_layer=4, **fields):
    """A network in which every part matters: Gaussian matrices, scalars away from their start."""
    shape = {"n_head": 2, "n_kv_head": 1, "d_model": 16, "vocab_size": 32}
    made = new_network(
        preset("demo", n_layer=n_layer, **shape, value_residual=fields), seed=0
    ).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("weight"):
                parameter.normal_(0, 0.3, generator=generator)
            else:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return made


def rows(seed=2):
    ids = torch.from_numpy(np.random.default_rng(seed).integers(0, 32, (ROWS, LENGTH + 1)))
    return as_rows(ids[:, :-1], ids[:, 1:])


def bits(model):
    """Mean loss, in bits a target: as_rows gives every target a byte."""
    return float(rows().losses(model).mean() / np.log(2))


def test_every_vector_that_is_no_matrix_is_found_once():
    model = network()
    found = scalars(model)
    names = [each.parameter for each in found]
    assert {n for n, _ in model.named_parameters() if not n.endswith("weight")} == set(names)
    entries = sum(each.values(model).size for each in found)
    assert entries == sum(
        p.numel() for n, p in model.named_parameters() if not n.endswith("weight")
    )
    assert [each.visit for each in found] == sorted(each.visit for each in found)
    kinds = {(each.kind, each.visit) for each in found}
    assert len(kinds) == len(found)
    assert {v for k, v in kinds if k == "skip_weights"} == {2, 3}
    assert {v for k, v in kinds if k == "value_residual"} == {1, 2, 3}


def test_output_bias_is_not_a_mixing_scalar():
    config = preset(
        "baseline", n_layer=2, n_head=2, n_kv_head=1, d_model=16, vocab_size=32, output_bias=True
    )
    assert {each.kind for each in scalars(new_network(config, seed=0))} == {
        *("attn_scale", "mlp_scale", "resid_mix_stream", "resid_mix_embedding"),
        *("q_gain", "skip_weights"),
    }


@pytest.mark.parametrize("gate", ["linear", "sigmoid"])
def test_costs_are_those_of_a_copy_edited_by_hand(gate):
    model, before = network(gate=gate), copy.deepcopy(network(gate=gate).state_dict())
    found = mixing({3: model}, rows())
    init = {"attn_scale": 1.0, "mlp_scale": 1.0, "resid_mix_stream": 1.0, "q_gain": 1.5}
    init |= {"resid_mix_embedding": 0.0, "skip_weights": 1.0, "value_residual": 0.5}
    for at, each in enumerate(scalars(model)):
        alpha = each.kind == "value_residual"
        off = -1e4 if alpha and gate == "sigmoid" else 0.0
        for cost, value in (("zero_cost", off), ("reset_cost", init[each.kind])):
            changed = copy.deepcopy(model)
            held = dict(changed.named_parameters())[each.parameter]
            with torch.no_grad():
                if each.rows == 1:
                    held[...] = value
                else:
                    held[each.row] = value
            expected = bits(changed) - bits(model)
            assert float(found[cost][at]) == pytest.approx(expected, abs=2e-6), each
    assert all(torch.equal(now, before[name]) for name, now in model.state_dict().items())


def test_reductions_are_those_of_the_vectors():
    models = {0: new_network(network().config, seed=0), 9: network()}
    found = mixing(models, rows())
    assert check(found) is found and found.step.values.tolist() == [0, 9]
    assert (found.distance.sel(step=0) == 0).all()
    scale = models[9].blocks[2].attn_scale.detach().numpy().astype(float)
    here = found.sel(scalar="visit 2 attn_scale", step=9)
    assert float(here["mean"]) == pytest.approx(scale.mean())
    assert float(here.distance) == pytest.approx(np.sqrt(((scale - 1) ** 2).mean()))
    with torch.no_grad():
        models[9].blocks[2].attn_scale[:4] *= -1
    turned = mixing(models, rows()).flipped.sel(step=9)
    assert float(turned.sel(scalar="visit 2 attn_scale")) == 0.25
    assert np.isnan(turned.sel(scalar="visit 2 resid_mix_embedding")), "0 has no sign"


def test_sigmoid_alphas_are_read_behind_their_gate():
    model = network(gate="sigmoid", init=-0.4)
    found = mixing({0: model}, rows()).sel(scalar="visit 1 value_residual")
    expected = model.value_residual.alpha.detach().double().sigmoid()
    assert float(found["mean"][0]) == pytest.approx(float(expected[0]))
    assert float(found.init) == pytest.approx(1 / (1 + np.exp(0.4)))


def test_gradient_shares_agree_with_backward():
    model = network()
    found = mixing({0: model}, rows())
    twin, given = copy.deepcopy(model), rows()
    loss = torch.nn.functional.cross_entropy(
        twin(given.inputs).flatten(0, 1), given.targets.ravel()
    )
    loss.backward()
    sizes = [
        each.part(dict(twin.named_parameters())[each.parameter].grad).abs().sum()
        for each in scalars(twin)
    ]
    np.testing.assert_allclose(found.gradient_share, np.array(sizes) / np.sum(sizes), rtol=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_dead_alpha_is_removed_and_its_healthy_twin_kept():
    model = network()
    with torch.no_grad():
        model.value_residual.alpha.copy_(torch.tensor([0.0, 2.0, 2.0]))
        model.blocks[1].attn.proj.weight.zero_()  # no gradient reaches this alpha
    found = mixing({0: model}, rows())
    dead, alive = (found.sel(scalar=f"visit {v} value_residual") for v in (1, 3))
    assert (float(dead.zero_cost), float(dead.gradient_share)) == (0, 0)
    assert dead.decision.item() == "remove" and "zero costs +0.0000" in dead.reason.item()
    assert alive.decision.item() != "remove" and float(alive.gradient_share) > 0
    only = [each for each in scalars(model) if each.kind == "value_residual"][:1]
    assert np.isnan(gradient_shares(model, rows(), only)).all(), "nothing to share"


@pytest.mark.parametrize(
    ("costs", "groups", "decision"),
    [
        ({"zero": (0.0001, 0.0002), "reset": (0.1, 0.001)}, 9, "remove"),
        ({"zero": (0.1, 0.001), "own": (-0.001, 0.001), "reset": (0, 0)}, 9, "identity"),
        ({"zero": (0.1, 0.001), "reset": (-0.05, 0.001)}, 9, "restore"),
        ({"zero": (0.0, 0.0), "reset": (-0.015, 0.001)}, 9, "restore"),  # 0 now, and lost
        ({"zero": (0.1, 0.001), "reset": (-0.05, 0.03)}, 9, "unjudged"),
        ({"zero": (0.1, 0.001), "reset": (-0.001, 0.0001)}, 9, "clamp"),
        ({"zero": (0.1, 0.001), "mean": (0, 0), "reset": (0.05, 0.001)}, 9, "keep"),
        ({"zero": (0.1, 0.001), "reset": (0.005, 0.003)}, 9, "unjudged"),
        ({"zero": (0.0, 0.0), "reset": (0.0, 0.0)}, 4, "unjudged"),
        ({"zero": (0.0, np.nan), "reset": (0.0, 0.0)}, 9, "unjudged"),
    ],
)
def test_decisions(costs, groups, decision):
    told, reason = decided(costs, groups)
    assert told == decision and reason
