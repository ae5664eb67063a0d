"""Optimizers: no parameter left out, decay by group, momentum, and saved state."""

import itertools
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from scipy.signal import sawtooth
from torch import nn

from workbench.folder import InputError
from workbench.model import PRESETS, Network, new_network, preset
from workbench.training import OptimizerConfig, optimizer_config, optimizers

SMALL = {"n_layer": 3, "n_head": 4, "n_kv_head": 2, "d_model": 16, "vocab_size": 20}
EVERY_KIND = {**SMALL, "tie_embeddings": False, "output_bias": True, "value_residual": True}


def groups_of(*arguments, **extra):
    return [group for each in optimizers(*arguments, **extra) for group in each.param_groups]


def gradients(model, *, seed):
    """Give every parameter that is not frozen a drawn gradient."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        parameter.grad = drawn if parameter.requires_grad else None


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
    muon, adam = optimizers(network, OptimizerConfig())
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
    kinds = {group["kind"]: {names[id(p)] for p in group["params"]} for group in groups}
    assert kinds["matrix"] == matrices and kinds["embedding"] == {"tok_emb.weight"}
    assert kinds.get("head", set()) == (set() if tied else {"lm_head.weight"})
    assert rate["tok_emb.weight"] == (0.05 if tied else 0.6)
    assert rate["blocks.0.attn.c_q.weight"] == rate["blocks.0.resid_mix"] == 0.04
    assert rate["skip_weights"] == 0.04
    assert tied or rate["lm_head.weight"] == 0.008
    assert all(group["weight_decay"] == 0 for group in groups)
    assert all(each["betas"] == (0.9, 0.95) and each["eps"] == 1e-8 for each in adam.param_groups)


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
        optimizers(network, OptimizerConfig())
        network.smear_gate = planted
        with pytest.raises(ValueError, match="no optimizer group for 'smear_gate'"):
            optimizers(network, OptimizerConfig())
        return
    network.blocks[0].gate = planted
    groups = groups_of(network, OptimizerConfig())
    assert any(p is planted for group in groups for p in group["params"])


def test_a_model_of_other_names_is_refused():
    with pytest.raises(ValueError, match="no optimizer group for '0.weight'"):
        optimizers(nn.Sequential(nn.Linear(3, 4)), OptimizerConfig())


def test_a_parameter_in_two_groups_is_refused_by_name():
    network = new_network(preset("baseline", **SMALL), seed=0)
    objective = nn.Linear(16, 20)
    optimizers(network, OptimizerConfig(), extra=objective.named_parameters())
    objective.weight = network.tok_emb.weight
    with pytest.raises(ValueError, match="'weight' is in two optimizer groups: embedding and mat"):
        optimizers(network, OptimizerConfig(), extra=objective.named_parameters())
    network.blocks[1].mlp.fc.weight = network.tok_emb.weight
    with pytest.raises(ValueError, match=r"'blocks.1.mlp.fc.weight' is in two"):
        optimizers(network, OptimizerConfig())


def test_a_shared_matrix_is_in_its_group_once():
    network = new_network(preset("baseline", **SMALL), seed=0)
    shared = network.blocks[1].mlp.fc.weight = network.blocks[0].mlp.fc.weight
    placed = [p for group in groups_of(network, OptimizerConfig()) for p in group["params"]]
    assert sum(p is shared for p in placed) == 1 and len(placed) == len(list(network.parameters()))


def test_weights_of_an_objective_join_the_groups():
    network = new_network(preset("baseline", **SMALL), seed=0)
    objective = nn.Linear(16, 20)
    plain = {group["kind"]: group for group in groups_of(network, OptimizerConfig())}
    groups = groups_of(network, OptimizerConfig(), extra=objective.named_parameters())
    for group in groups:
        added = {"matrix": [objective.weight], "scalar": [objective.bias]}.get(group["kind"], [])
        before = plain.pop(group["kind"])
        assert list(map(id, group["params"])) == list(map(id, [*before["params"], *added]))
    assert not plain


def test_a_frozen_parameter_stays_until_it_is_thawed():
    network = new_network(preset("baseline", **EVERY_KIND), seed=0)
    frozen = [network.blocks[0].mlp.fc.weight, network.tok_emb.weight, network.skip_weights]
    for parameter in frozen:
        parameter.requires_grad_(False)
    before = [parameter.detach().clone() for parameter in frozen]
    both = optimizers(network, OptimizerConfig(weight_decay=0.5, embedding_weight_decay=0.5))

    def moved():
        gradients(network, seed=1)
        for each in both:
            each.step()
        return [not torch.equal(p, b) for p, b in zip(frozen, before, strict=True)]

    assert moved() == [False] * 3
    for parameter in frozen:
        parameter.requires_grad_(True)
    assert moved() == [True] * 3


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


def test_decay_by_group_is_a_factor_before_the_update():
    """A loop over every parameter: what decay adds to a step, in its group and in no other."""
    expected = {"matrix": 0.04 * 0.3, "embedding": 0.6 * 0.2, "head": 0.008 * 0.2, "scalar": 0.0}
    start = {}
    stepped = []
    for config in (
        OptimizerConfig(),
        OptimizerConfig(weight_decay=0.3, embedding_weight_decay=0.2),
    ):
        network = new_network(preset("baseline", **EVERY_KIND), seed=0)
        gradients(network, seed=2)
        for name, parameter in network.named_parameters():  # a fresh head is zero
            parameter.data.copy_(parameter.grad)
            start[name] = parameter.detach().clone()
        gradients(network, seed=1)
        both = optimizers(network, config)
        for each in both:
            each.step()
        stepped.append({name: p.detach() for name, p in network.named_parameters()})
    names = {id(p): name for name, p in network.named_parameters()}
    kinds = {
        names[id(p)]: group["kind"]
        for each in both
        for group in each.param_groups
        for p in group["params"]
    }
    assert set(kinds.values()) == set(expected)
    for name, plain in stepped[0].items():
        lost = plain - stepped[1][name]
        torch.testing.assert_close(lost, expected[kinds[name]] * start[name], atol=2e-7, rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "weight_decay": 0.1,
            "embedding_weight_decay": 0.1,
            "newton_schulz": "polar_express",
            "normalize_rows": True,
            "momentum_period": 4,
        },
    ],
)
def test_a_saved_state_continues_bit_for_bit(settings):
    """Through named tensors and JSON, as a file has them, into fresh optimizers."""

    def trained(restart):
        config = OptimizerConfig(**settings)
        network = new_network(preset("baseline", **EVERY_KIND), seed=0)
        both = optimizers(network, config)
        for step in range(6):
            if restart and step == 3:
                saved = [filed(each.state_dict()) for each in both]
                both = optimizers(network, OptimizerConfig(matrix_lr=0.5))
                for each, state in zip(both, saved, strict=True):
                    each.load_state_dict(state)
            gradients(network, seed=step)
            for group in both[0].param_groups:
                group["momentum"] = config.momentum_at(step)
            for each in both:
                each.step()
        return network.state_dict()

    def filed(state):
        flat = {f"{i}.{n}": t for i, each in state["state"].items() for n, t in each.items()}
        groups = json.loads(json.dumps(state["param_groups"]))
        memory = {}
        for name, tensor in load(save(flat)).items():
            index, what = name.split(".")
            memory.setdefault(int(index), {})[what] = tensor
        return {"state": memory, "param_groups": groups}

    once, twice = trained(False), trained(True)
    assert all(torch.equal(tensor, twice[name]) for name, tensor in once.items())


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


@given(st.integers(0, 500), st.integers(2, 80))
def test_momentum_cycle_is_a_triangle(step, period):
    config = OptimizerConfig(momentum_period=period, momentum_warmup_steps=7)
    expected = 0.9 + 0.05 * sawtooth(2 * torch.pi * (step % period) / period, width=0.5)
    assert config.momentum_at(step) == pytest.approx(float(expected), abs=1e-9)
    assert config.momentum_at(step) == config.momentum_at(step + period)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.85), (10, 0.89), (25, 0.95), (40, 0.89), (49, 0.854), (75, 0.95)]
)
def test_momentum_cycle_of_fifty_steps(step, expected):
    assert OptimizerConfig(momentum_period=50).momentum_at(step) == pytest.approx(expected)


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
        ("newton_schulz", "cubic"),
        ("weight_decay", -0.1),
        ("momentum_period", "50"),
        ("momentum", None),
    ],
)
def test_wrong_values_are_named(key, value):
    with pytest.raises(InputError, match=key):
        optimizer_config(**{key: value})


def test_settings_reach_muon():
    network = new_network(preset("baseline", **SMALL), seed=0)
    settings = {
        "newton_schulz": "polar_express",
        "newton_schulz_steps": 7,
        "newton_schulz_dtype": "bfloat16",
        "normalize_rows": True,
        "weight_decay": 0.3,
        "momentum_start": 0.7,
    }
    muon, _ = optimizers(network, OptimizerConfig(**settings))
    plain, _ = optimizers(network, OptimizerConfig())
    of_muon = ("coefficients", "steps", "dtype", "normalize_rows", "weight_decay", "momentum")
    found = [[each.param_groups[0][name] for name in of_muon] for each in (muon, plain)]
    assert found[0] == list(settings.values())
    assert found[1] == ["standard", 5, "auto", False, 0.0, 0.85]
