import copy

import numpy as np
import pytest
import torch
from foreign_models import KINDS, foreign_model
from torch import nn

from workbench.folder import InputError
from workbench.foreign import adapt, read_huggingface
from workbench.foreign import adapter as adapter_module
from workbench.model import Matrix, Network, new_network, preset, record

STREAM = ("residual_in", "attention_out", "feedforward_out")
INNER = ("head_out", "feedforward_hidden")
ATTENDED = ("query", "key", "value_own", "value")
LAST = {  # the last matrix of attention and of feed-forward in a block
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "llama": ("self_attn.o_proj", "mlp.down_proj"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
    "gemma2": ("self_attn.o_proj", "mlp.down_proj"),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return foreign_model(kind)


@pytest.fixture(scope="module")
def adapter(model):
    return adapt(model)


@pytest.fixture(scope="module")
def ids():
    return torch.randint(0, 257, (3, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def logits_of(model, ids):
    return model(input_ids=ids).logits


def blocks_of(model):
    return max((m for m in model.modules() if isinstance(m, nn.ModuleList)), key=len)


def silenced(model, layer):
    """Copy a model and set one layer of its second block to zero."""
    changed = copy.deepcopy(model)
    for parameter in blocks_of(changed)[1].get_submodule(layer).parameters():
        parameter.zero_()
    return changed


def test_logits_are_those_of_the_model_watched_or_not(model, adapter, ids):
    state, own = torch.get_rng_state(), logits_of(model, ids)
    assert torch.equal(adapter(ids), own)
    with record(adapter, adapter.sites()) as seen:
        assert torch.equal(adapter(ids), own)
    assert set(seen) == set(adapter.sites())
    assert torch.equal(seen["logits"], own)
    assert torch.equal(state, torch.get_rng_state())
    left = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not left


def test_every_kind_has_the_sites_that_its_structure_allows(adapter, kind):
    wanted = STREAM + INNER + (ATTENDED if kind != "gemma2" else ())  # its attention has a softcap
    inner = [
        f"visit.{visit}.{name}"
        for visit in range(2)
        for name in Network.VISIT_SITES
        if name in wanted
    ]
    assert adapter.sites() == ("embedding", *inner, "residual_out", "final_norm", "logits")


def test_writes_add_up_to_the_stream(adapter, ids):
    with record(adapter, adapter.sites()) as seen:
        adapter(ids)
    after = {0: "visit.1.residual_in", 1: "residual_out"}
    for visit, later in after.items():
        parts = [seen[f"visit.{visit}.{site}"] for site in STREAM]
        torch.testing.assert_close(sum(parts), seen[later], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(adapter.final_norm(seen["residual_out"]), seen["final_norm"])


@pytest.mark.parametrize("part", [0, 1])
def test_write_replaced_by_zero_is_a_part_whose_last_matrix_is_zero(
    model, adapter, kind, ids, part
):
    site = f"visit.1.{('attention_out', 'feedforward_out')[part]}"
    with record(adapter, replace={site: torch.zeros_like}):
        found = adapter(ids)
    expected = logits_of(silenced(model, LAST[kind][part]), ids)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, logits_of(model, ids))


@pytest.mark.parametrize("site", INNER)
def test_unit_or_head_replaced_by_zero_is_its_columns_at_zero(model, adapter, kind, ids, site):
    part, width = INNER.index(site), adapter.config.d_head
    changed = copy.deepcopy(model)
    layer = blocks_of(changed)[1].get_submodule(LAST[kind][part])
    by_input = layer.weight.T if isinstance(layer, nn.Linear) else layer.weight
    by_input[2 * width : 3 * width] = 0

    def edit(tensor):
        tensor = tensor.clone()
        if part:
            tensor[..., 2 * width : 3 * width] = 0
        else:
            tensor[:, 2] = 0
        return tensor

    with record(adapter, replace={f"visit.1.{site}": edit}):
        torch.testing.assert_close(adapter(ids), logits_of(changed, ids))


def test_trunk_and_head_make_the_logits(model, adapter, ids):
    hidden = adapter.hidden(ids)
    own = logits_of(model, ids)
    torch.testing.assert_close(adapter.head(hidden), own)
    bare = hidden @ adapter.head_weight.T
    torch.testing.assert_close(adapter.capped(bare), own)
    capped = adapter.config.softcap is not None
    assert capped == (not torch.allclose(bare, own))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox"])
def test_queries_and_keys_make_the_attention_that_the_model_reports(kind, ids):
    adapter, eager = adapt(foreign_model(kind)), foreign_model(kind)
    eager.set_attn_implementation("eager")
    with record(adapter, [f"visit.1.{site}" for site in (*ATTENDED, "head_out")]) as seen:
        adapter(ids)
    query, key, own, value = (seen[f"visit.1.{site}"] for site in ATTENDED)
    key, value = (
        each.repeat_interleave(query.shape[1] // each.shape[1], 1) for each in (key, value)
    )
    scores = (query @ key.mT) * query.shape[-1] ** -0.5
    scores = scores.masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf)
    reported = eager(input_ids=ids, output_attentions=True).attentions[1]
    torch.testing.assert_close(scores.softmax(dim=-1), reported)
    torch.testing.assert_close(reported @ value, seen["visit.1.head_out"])
    assert torch.equal(own, seen["visit.1.value"])


def test_matrices_are_those_of_the_checkpoint_with_outputs_as_rows(model, adapter, kind):
    matrices, state = adapter.matrices(), model.state_dict()
    for matrix in matrices:
        assert isinstance(matrix, Matrix) and matrix.weight.ndim == 2
    stored = {
        tuple(np.round(np.linalg.svd(t.numpy(), compute_uv=False), 4).tolist())
        for name, t in state.items()
        if t.ndim == 2 and "wpe" not in name  # positions are no matrix of the network
    }
    found = [np.linalg.svd(each.weight.numpy(), compute_uv=False) for each in matrices]
    assert {tuple(np.round(sigma, 4).tolist()) for sigma in found} == stored
    for part, role in enumerate(("attention_out", "feedforward_out")):
        (last,) = [each for each in matrices if (each.block, each.role) == (1, role)]
        assert last.weight.shape[0] == 16
        layer = blocks_of(model)[1].get_submodule(LAST[kind][part])
        assert last.weight.data_ptr() == layer.weight.data_ptr()
        own = layer.weight if isinstance(layer, nn.Linear) else layer.weight.T
        assert torch.equal(last.weight, own)  # a square one too


@pytest.mark.parametrize(
    ("kind", "roles"),
    [
        ("gpt2", {"c_attn", "attention_out", "feedforward_in", "feedforward_out"}),
        ("gpt_neox", {"query_key_value", "attention_out", "feedforward_in", "feedforward_out"}),
        (
            "gemma2",
            {"query", "key", "value", "attention_out"}
            | {"feedforward_gate", "feedforward_in", "feedforward_out"},
        ),
    ],
)
def test_matrices_carry_their_roles(kind, roles):
    found = adapt(foreign_model(kind)).matrices()
    assert {each.role for each in found if each.block == 0} == roles
    assert found[0].role == "embedding"
    assert (found[-1].role == "head") == (kind == "gpt_neox")


def test_sizes_are_those_of_the_model(adapter, kind):
    config = adapter.config
    kept = 2 if kind in ("llama", "gemma2") else 4
    assert (config.n_layer, config.n_head, config.n_kv_head) == (2, 4, kept)
    assert (config.d_model, config.d_head) == (16, 6 if kind == "gemma2" else 4)
    assert (config.vocab_size, config.tie_embeddings) == (257, kind in ("gpt2", "gemma2"))
    assert (adapter.longest == 64) == (kind == "gpt2")


def test_parameters_are_the_models_own_once_each(model, adapter):
    own = dict(model.named_parameters())
    found = dict(adapter.named_parameters())
    assert {name.removeprefix("network."): p for name, p in found.items()}.keys() == own.keys()
    assert all(found[f"network.{name}"] is parameter for name, parameter in own.items())


def test_adapted_llama_agrees_site_by_site_with_the_same_weights_as_a_network(tmp_path, ids):
    model = foreign_model("llama")
    model.save_pretrained(tmp_path)
    ours, theirs = read_huggingface(tmp_path).network, adapt(model)
    assert theirs.sites() == ours.sites()
    with record(ours, ours.sites()) as seen, record(theirs, theirs.sites()) as other:
        torch.testing.assert_close(ours(ids), theirs(ids), atol=1e-5, rtol=1e-4)
    for site in ours.sites():
        torch.testing.assert_close(seen[site], other[site], atol=1e-5, rtol=1e-4, msg=site)


@pytest.mark.parametrize(
    ("kind", "fields", "absent"),
    [
        ("granite", {"logits_scaling": 3.0}, {"final_norm"}),
        ("granite", {"logits_scaling": 1.0}, set()),
        ("granite", {"residual_multiplier": 0.5}, {"attention_out", "feedforward_out"}),
        ("granite", {"attention_multiplier": 1.0}, set(ATTENDED)),
        ("mixtral", {"num_local_experts": 2}, {"feedforward_hidden"}),  # experts have no one input
        ("phi", {}, set()),  # one dropout serves both parts: it is not where either is written
    ],
)
def test_site_that_would_mean_something_else_is_left_out(kind, fields, absent, ids):
    usual = {"intermediate_size": 24, "num_key_value_heads": 2}
    usual |= {"attention_multiplier": 0.5} if kind == "granite" else {}
    model = foreign_model(kind, **(usual | fields))
    adapter = adapt(model)
    inner = {site.rpartition(".")[2] for site in adapter.sites()}
    every = {*STREAM, *INNER, *ATTENDED, "embedding", "residual_out", "final_norm", "logits"}
    assert every - inner == absent
    with record(adapter, adapter.sites()):
        assert torch.equal(adapter(ids), logits_of(model, ids))


@pytest.mark.parametrize(
    ("kind", "fields", "is_whole"),
    [
        ("mistral", {"sliding_window": 4, "max_position_embeddings": 64}, False),
        ("mistral", {"sliding_window": 64, "max_position_embeddings": 64}, True),
        ("mistral", {"sliding_window": None}, True),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 4}, True),
        (
            "qwen2",
            {"use_sliding_window": True, "sliding_window": 99, "max_position_embeddings": 64}
            | {"layer_types": ["full_attention", "sliding_attention"]},
            False,
        ),
    ],
)
def test_windowed_attention_is_not_offered_as_plain(kind, fields, is_whole, ids):
    model = foreign_model(kind, intermediate_size=24, num_key_value_heads=2, **fields)
    adapter = adapt(model)
    inner = {site.rpartition(".")[2] for site in adapter.sites()}
    assert inner & {*ATTENDED} == ({*ATTENDED} if is_whole else set())
    with record(adapter, adapter.sites()):
        assert torch.equal(adapter(ids), logits_of(model, ids))


def test_only_a_triangle_is_a_causal_mask():
    plain = torch.ones(1, 1, 6, 6).bool().tril()
    window = plain & ~plain.tril(-4)
    assert adapter_module._is_causal(plain)
    for other in (window, torch.ones_like(plain), plain.float()):
        assert not adapter_module._is_causal(other)


def test_shared_dropout_is_not_taken_for_a_write(ids):
    adapter = adapt(foreign_model("phi", intermediate_size=24))
    with record(adapter, adapter.sites()) as seen:
        adapter(ids)
    parts = [seen[f"visit.0.{site}"] for site in STREAM]
    torch.testing.assert_close(sum(parts), seen["visit.1.residual_in"])


def test_half_precision_finds_the_same_sites(kind, adapter):
    assert adapt(foreign_model(kind).bfloat16()).sites() == adapter.sites()


def test_training_mode_is_refused():
    model = foreign_model("llama").train()
    with pytest.raises(InputError, match="training mode"):
        adapt(model)
    assert model.training


def test_anything_else_is_refused():
    for other in (nn.Linear(2, 2), new_network(preset("demo"), seed=0).eval()):
        with pytest.raises(InputError, match="causal language model"):
            adapt(other)
