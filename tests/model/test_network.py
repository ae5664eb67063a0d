"""The network against a slow forward pass in NumPy, its parameters against the official table.

The reference is written for one sequence, position by position and head by head, in float64, and
turns pairs of channels as complex numbers; it shares no code with the network.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.model import (
    ModelConfig,
    Network,
    RopeScaling,
    ValueResidualConfig,
    n_parameter,
    new_network,
    preset,
    record,
    state,
)

BASE = {"n_head": 4, "n_kv_head": 2, "d_model": 16, "vocab_size": 19, "value_residual": None}
VARIANTS = {
    "two layers": {"n_layer": 2},
    "three layers": {"n_layer": 3},  # one encoder, two decoders, one skip
    "five layers": {"n_layer": 5},
    "one layer": {"n_layer": 1},  # no encoder, no skip
    "no groups": {"n_layer": 2, "n_kv_head": 4},
    "one key head": {"n_layer": 2, "n_kv_head": 1},
    "untied": {"n_layer": 2, "tie_embeddings": False},
    "output bias": {"n_layer": 2, "output_bias": True},
    "tight cap": {"n_layer": 2, "softcap": 2.0},
    "other rope": {"n_layer": 2, "rope_base": 50.0, "n_head": 2, "n_kv_head": 2},
    "wide": {"n_layer": 2, "feedforward_multiple": 3},
    "first value": {"n_layer": 4, "value_residual": ValueResidualConfig()},
    "previous value": {
        "n_layer": 4,
        "value_residual": ValueResidualConfig(form="blend", gate="sigmoid", source="previous"),
    },
    "plain": {"n_layer": 3, "stream": "plain"},
    "unbounded": {"n_layer": 2, "softcap": None},
    "gated": {"n_layer": 2, "feedforward": "swiglu", "feedforward_width": 22},
    "weighted norms": {"n_layer": 3, "norm_eps": 0.1},
    "learned heads": {"n_layer": 2, "norm_eps": 0.1, "query_key": "learned"},
    "plain heads": {"n_layer": 2, "query_key": "plain"},
    "biases": {"n_layer": 2, "attention_bias": True},
    "wide heads": {"n_layer": 2, "head_width": 6},
    "other turn": {"n_layer": 2, "rope_direction": 1},
    "stretched": {"n_layer": 2, "rope_scaling": RopeScaling(type="linear", factor=3.0)},
    "everything": {
        **{"n_layer": 4, "stream": "plain", "softcap": 5.0, "feedforward": "swiglu"},
        **{"norm_eps": 0.01, "query_key": "learned", "attention_bias": True, "head_width": 6},
        **{"rope_direction": 1, "tie_embeddings": False, "output_bias": True},
        "value_residual": ValueResidualConfig(form="blend", gate="sigmoid"),
    },
}


def shaped(**fields):
    return preset("baseline", **{**BASE, **fields})


def randomized(config, seed=0):
    """Draw every parameter, so that no scale, skip or mix is at a value that hides it."""
    network = Network(config).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.6, generator=generator)
    return network


# --- reference -------------------------------------------------------------------------------


def norm(x, eps=None, weight=1.0):
    eps = np.finfo(np.float64).eps if eps is None else eps
    return weight * x / np.sqrt(np.mean(x * x) + eps)


def headed(x, position, config, w, which):
    """Bring one head of queries or keys to where it is compared."""
    if config.query_key == "learned":
        x = norm(x, config.norm_eps, w[f"attn.{which}_norm.weight"])
    elif config.query_key == "gained":
        x = norm(x)
    return turned(x, position, config)


def turned(x, position, config):
    """Rotate the pairs (m, m + d/2) of one head by plus or minus position * base^(-2m/d)."""
    half = len(x) // 2
    pairs = x[:half] + 1j * x[half:]
    factor = config.rope_scaling.factor if config.rope_scaling else 1.0
    for m in range(half):
        angle = position * config.rope_base ** (-2 * m / len(x)) / factor
        pairs[m] *= np.exp(config.rope_direction * 1j * angle)
    return np.concatenate([pairs.real, pairs.imag])


def reference(weights, config, ids):
    """Return the logits (T, V) of one sequence."""
    d, n_token = config.head_width or config.d_model // config.n_head, len(ids)
    mixed = config.stream == "mixed"
    group = config.n_head // config.n_kv_head
    x = [weights["tok_emb.weight"][token] for token in ids]
    x = [norm(each) for each in x] if mixed else x
    start = [each.copy() for each in x]
    n_encoder = config.n_layer // 2
    stack, values = [], []
    for layer in range(config.n_layer):
        w = {
            name.split(".", 2)[2]: each
            for name, each in weights.items()
            if name.startswith(f"blocks.{layer}.")
        }
        attn_norm, mlp_norm = (w.get(f"{part}_norm.weight", 1.0) for part in ("attn", "mlp"))
        if layer >= n_encoder and stack:
            skipped = stack.pop()
            gain = weights["skip_weights"][layer - n_encoder]
            x = [x[t] + gain * skipped[t] for t in range(n_token)]
        if mixed:
            x = [w["resid_mix"][0] * x[t] + w["resid_mix"][1] * start[t] for t in range(n_token)]

        query, key, value = [], [], []
        for t in range(n_token):
            into = norm(x[t], config.norm_eps, attn_norm)
            q, k, v = (
                w[f"attn.c_{part}.weight"] @ into + w.get(f"attn.c_{part}.bias", 0.0)
                for part in "qkv"
            )
            heads = [q[h * d : (h + 1) * d] for h in range(config.n_head)]
            gains = w.get("attn.q_gain", np.ones(config.n_head))
            query.append([headed(q, t, config, w, "q") * gains[h] for h, q in enumerate(heads)])
            heads = [k[h * d : (h + 1) * d] for h in range(config.n_kv_head)]
            key.append([headed(k, t, config, w, "k") for k in heads])
            value.append([v[h * d : (h + 1) * d] for h in range(config.n_kv_head)])
        mechanism = config.value_residual
        if mechanism is not None and layer > 0:
            source = values[0] if mechanism.source == "first" else values[-1]
            a = weights["value_residual.alpha"][layer - 1]
            a = 1 / (1 + np.exp(-a)) if mechanism.gate == "sigmoid" else a
            keep = 1 - a if mechanism.form == "blend" else 1.0
            value = [
                [keep * own + a * other for own, other in zip(value[t], source[t], strict=True)]
                for t in range(n_token)
            ]
        values.append(value)

        for t in range(n_token):
            heads = []
            for h in range(config.n_head):
                scores = [query[t][h] @ key[s][h // group] / np.sqrt(d) for s in range(t + 1)]
                p = np.exp(np.array(scores) - max(scores))
                p /= p.sum()
                heads.append(sum(p[s] * value[s][h // group] for s in range(t + 1)))
            scale = w.get("attn_scale", 1.0)
            x[t] = x[t] + scale * (w["attn.proj.weight"] @ np.concatenate(heads))
            into = norm(x[t], config.norm_eps, mlp_norm)
            hidden = w["mlp.fc.weight"] @ into
            if config.feedforward == "swiglu":
                gate = w["mlp.gate.weight"] @ into
                hidden = gate / (1 + np.exp(-gate)) * hidden
            else:
                hidden = np.maximum(hidden, 0) ** 2
            x[t] = x[t] + w.get("mlp_scale", 1.0) * (w["mlp.proj.weight"] @ hidden)
        if mixed and layer < n_encoder:
            stack.append([each.copy() for each in x])

    head = weights.get("lm_head.weight", weights["tok_emb.weight"])
    last = weights.get("final_norm.weight", 1.0)
    z = np.array([head @ norm(each, config.norm_eps, last) for each in x])
    z += weights.get("lm_bias", 0.0)
    if config.softcap is None:
        return z
    return config.softcap * np.tanh(z / config.softcap)


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_against_the_slow_reference(variant):
    config = shaped(**VARIANTS[variant])
    network = randomized(config)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (2, 7))
    with torch.no_grad():
        logits = network(torch.from_numpy(ids)).numpy()
    weights = {name: tensor.numpy() for name, tensor in state(network).items()}
    expected = np.array([reference(weights, config, row) for row in ids])
    assert np.abs(expected).max() > 0.2 and np.isfinite(expected).all()
    # The angles are computed in float32, which bounds the agreement.
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        shaped(n_layer=3, tie_embeddings=False, output_bias=True, value_residual=True),
        shaped(**VARIANTS["everything"]),
    ],
    ids=["mixed", "plain"],
)
def test_every_parameter_reaches_the_logits(config):
    """Each tensor that exists must matter: a scale that is not applied has no gradient."""
    network = randomized(config)
    ids = torch.arange(14).reshape(2, 7)
    weight = torch.randn(2, 7, 19, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (network(ids) * weight).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().max()) > 1e-9, name


# --- parameters ------------------------------------------------------------------------------


def official(n_layer, d, vocab_size, n_head, n_kv_head):
    per_block = {
        "attn_scale": (d,),
        "mlp_scale": (d,),
        "resid_mix": (2, d),
        "attn.q_gain": (n_head,),
        "attn.c_q.weight": (d, d),
        "attn.c_k.weight": (d * n_kv_head // n_head, d),
        "attn.c_v.weight": (d * n_kv_head // n_head, d),
        "attn.proj.weight": (d, d),
        "mlp.fc.weight": (2 * d, d),
        "mlp.proj.weight": (d, 2 * d),
    }
    table = {"skip_weights": (n_layer // 2, d), "tok_emb.weight": (vocab_size, d)}
    for layer in range(n_layer):
        table |= {f"blocks.{layer}.{name}": shape for name, shape in per_block.items()}
    return table


def test_official_names_and_shapes():
    with torch.device("meta"):
        network = Network(ModelConfig())
    found = {name: tuple(tensor.shape) for name, tensor in state(network).items()}
    assert found == official(9, 512, 1024, 8, 4)
    assert len(found) == 92
    assert set(found) == set(dict(network.named_parameters())), "no buffer is saved"
    assert n_parameter(ModelConfig()) == 17_059_912
    assert sum(int(np.prod(shape)) for shape in found.values()) == 17_059_912


def test_variants_add_only_what_they_name():
    plain = set(official(3, 16, 19, 4, 2))
    added = {"tie_embeddings": False, "output_bias": True, "value_residual": True}
    network = new_network(shaped(n_layer=3, **added), seed=0)
    extra = {name: tuple(t.shape) for name, t in state(network).items() if name not in plain}
    assert extra == {"lm_head.weight": (19, 16), "lm_bias": (19,), "value_residual.alpha": (2,)}


@settings(max_examples=20)
@given(
    n_layer=st.integers(1, 4),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 3)]),
    tied=st.booleans(),
    bias=st.booleans(),
)
def test_parameter_forecast(n_layer, heads, tied, bias):
    config = shaped(
        n_layer=n_layer,
        n_head=heads[0],
        n_kv_head=heads[1],
        d_model=24,
        tie_embeddings=tied,
        output_bias=bias,
    )
    made = new_network(config, seed=0)
    assert n_parameter(config) == sum(p.numel() for p in made.parameters())


def test_matrices_name_every_matrix_once():
    network = new_network(shaped(n_layer=3, tie_embeddings=False), seed=0)
    found = network.matrices()
    two_dimensional = {
        id(p)
        for name, p in network.named_parameters()
        if p.ndim == 2 and "resid_mix" not in name and name != "skip_weights"
    }
    assert {id(each.weight) for each in found} == two_dimensional
    assert len({each.name for each in found}) == len(found) == 3 * 6 + 2
    assert (found[0].name, found[-1].name) == ("embedding", "head")
    assert [each.block for each in found] == [-1, *[0] * 6, *[1] * 6, *[2] * 6, -1]
    assert found[5].weight is network.blocks[0].mlp.fc.weight and found[5].role == "feedforward_in"


# --- step 0 ----------------------------------------------------------------------------------


def test_a_gate_is_a_matrix_of_its_own():
    network = new_network(preset("llama", n_layer=2), seed=0)
    found = {each.name: each for each in network.matrices()}
    assert found["block.1.feedforward_gate"].weight is network.blocks[1].mlp.gate.weight
    assert found["block.1.feedforward_in"].weight is network.blocks[1].mlp.fc.weight
    assert len(found) == 1 + 2 * 7


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_families_keep_every_site_and_its_shape(name):
    config = preset(name, n_layer=2, vocab_size=19)
    network = randomized(config).float()
    ids, (b, t) = torch.arange(12).reshape(2, 6), (2, 6)
    with torch.no_grad(), record(network, network.sites()) as seen:
        network(ids)
    stream, by_key = (b, t, config.d_model), (b, config.n_kv_head, t, config.d_head)
    by_head = (b, config.n_head, t, config.d_head)
    shapes = {
        **{"residual_in": stream, "attention_out": stream, "feedforward_out": stream},
        **{"value": by_key, "value_own": by_key, "key": by_key, "query": by_head},
        **{"head_out": by_head, "feedforward_hidden": (b, t, config.d_feedforward)},
    }
    assert set(network.VISIT_SITES) == set(shapes)
    for site, shape in shapes.items():
        assert seen[f"visit.1.{site}"].shape == shape, site
    # What enters the down projection, and what leaves it.
    down = network.blocks[1].mlp.proj(seen["visit.1.feedforward_hidden"])
    torch.testing.assert_close(down, seen["visit.1.feedforward_out"])


@pytest.mark.parametrize("ratio", [1, 4, 7, 8])
@pytest.mark.parametrize("width", [8, 16])
def test_groups_equal_heads_whose_keys_and_values_are_repeated(ratio, width):
    shape = {"n_layer": 1, "d_model": 24, "vocab_size": 31, "head_width": width}
    grouped = randomized(preset("qwen2", n_head=2 * ratio, n_kv_head=2, **shape)).float()
    whole = Network(preset("qwen2", n_head=2 * ratio, n_kv_head=2 * ratio, **shape))
    weights = dict(state(grouped))
    for name in [each for each in weights if ".c_k." in each or ".c_v." in each]:
        weights[name] = weights[name].unflatten(0, (2, width)).repeat_interleave(ratio, 0)
        weights[name] = weights[name].flatten(0, 1)
    whole.load_state_dict(weights)
    ids = torch.randint(0, 31, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), record(grouped, ["visit.0.attention_out"]) as one:
        grouped(ids)
    with torch.no_grad(), record(whole, ["visit.0.attention_out"]) as other:
        whole(ids)
    found, expected = one["visit.0.attention_out"], other["visit.0.attention_out"]
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max().clamp(min=1))
    assert float(torch.cosine_similarity(found, expected, dim=-1).min()) > 0.9999


def test_published_parameter_counts():
    qwen = {"n_layer": 24, "n_head": 14, "n_kv_head": 2, "d_model": 896, "vocab_size": 151936}
    assert n_parameter(preset("qwen2", feedforward_width=4864, **qwen)) == 494_032_768
    llama = {"n_layer": 24, "n_head": 16, "n_kv_head": 4, "d_model": 1024, "vocab_size": 50257}
    llama |= {"feedforward_width": 2816}
    assert n_parameter(preset("llama", **llama)) == 322_045_952
    assert n_parameter(preset("llama", **llama)) + 50257 * 1024 == 373_509_120
    assert n_parameter(preset("llama", tie_embeddings=False, **llama)) == 373_509_120


def test_fresh_families_are_the_identity_and_learn_everything():
    for name in ("llama", "qwen2", "qwen3"):
        network = new_network(preset(name, n_layer=2, vocab_size=19), seed=0)
        with torch.no_grad(), record(network, ["embedding", "residual_out"]) as seen:
            network(torch.arange(6)[None])
        assert torch.equal(seen["embedding"], seen["residual_out"])
        biases = [t for n, t in state(network).items() if n.endswith(".bias")]
        assert len(biases) == (6 if name == "qwen2" else 0) and not any(map(torch.any, biases))


def test_fresh_weights_follow_the_table():
    network = new_network(shaped(n_layer=3, d_model=64, vocab_size=500), seed=3)
    for name, tensor in state(network).items():
        if name.endswith("proj.weight"):
            assert not tensor.any(), name
        elif name == "tok_emb.weight":
            assert abs(float(tensor.std()) / 0.005 - 1) < 0.02 and abs(float(tensor.mean())) < 1e-4
        elif tensor.ndim == 2 and "c_" in name or "fc" in name:
            bound = tensor.shape[1] ** -0.5
            assert 0.98 * bound < float(tensor.abs().max()) <= bound, name
            assert abs(float(tensor.std()) / (bound / 3**0.5) - 1) < 0.05, name
        elif "resid_mix" in name:
            assert (tensor[0] == 1).all() and (tensor[1] == 0).all()
        else:
            assert (tensor == (1.5 if "q_gain" in name else 1.0)).all(), name


def test_blocks_are_the_identity_at_step_0():
    network = new_network(shaped(n_layer=5, value_residual=True), seed=0)
    ids = torch.arange(12).reshape(2, 6)
    sites = [
        f"visit.{visit}.{part}_out" for visit in range(5) for part in ("attention", "feedforward")
    ]
    with torch.no_grad(), record(network, [*sites, "embedding", "residual_out"]) as seen:
        network(ids)
    assert all(not seen[site].any() for site in sites)
    # Two skips of weight 1 add the embedding twice.
    torch.testing.assert_close(seen["residual_out"], 3 * seen["embedding"])


def test_an_untied_head_is_silent_at_step_0():
    network = new_network(shaped(n_layer=2, tie_embeddings=False, output_bias=True), seed=0)
    assert not network(torch.arange(6)[None]).any()
    assert abs(float(network.tok_emb.weight.detach().std()) - 1) < 0.1


def test_fresh_weights_depend_on_the_seed_alone():
    config = shaped(n_layer=2)
    torch.manual_seed(1)
    one = state(new_network(config, seed=5))
    torch.manual_seed(2)
    torch.rand(7)
    same, other = state(new_network(config, seed=5)), state(new_network(config, seed=6))
    assert all(torch.equal(one[name], same[name]) for name in one)
    differing = {name for name in one if not torch.equal(one[name], other[name])}
    assert differing == {
        name for name in one if "c_" in name or "fc" in name or name == "tok_emb.weight"
    }


def test_fresh_weights_leave_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    new_network(shaped(n_layer=2), seed=5)
    assert torch.equal(torch.get_rng_state(), before)


# --- behaviour -------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["three layers", "first value", "output bias"])
def test_causal(variant):
    network = randomized(shaped(**VARIANTS[variant]))
    ids = torch.randint(0, 19, (1, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = network(ids)
        for position in range(9):
            changed = ids.clone()
            changed[0, position] = (changed[0, position] + 1) % 19
            after = network(changed)
            torch.testing.assert_close(after[:, :position], before[:, :position])
            assert not torch.allclose(after[:, position], before[:, position])


def test_rows_do_not_see_each_other():
    network = randomized(shaped(n_layer=3))
    ids = torch.randint(0, 19, (3, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, apart = network(ids), torch.cat([network(row[None]) for row in ids])
    torch.testing.assert_close(together, apart)


def test_logits_stay_below_the_cap():
    network = randomized(shaped(n_layer=2, softcap=3.0))
    with torch.no_grad():
        network.tok_emb.weight *= 100
        logits = network(torch.arange(10)[None])
    assert 2.9 < float(logits.abs().max()) <= 3.0


def test_bfloat16_forward_stays_near_float32():
    network = randomized(shaped(n_layer=3, value_residual=True)).float()
    with torch.no_grad():
        network.tok_emb.weight *= 0.2
        ids = torch.arange(16)[None]
        exact = network(ids)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(ids)
    assert float((rough.float() - exact).abs().max()) < 0.15 * float(exact.abs().max())
