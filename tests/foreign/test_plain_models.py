"""Models of plain PyTorch: found by structure, probed with the numbers they give themselves."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from foreign_models import EveryPlace, PlainModel, foreign_model, plain_model
from torch import nn

from workbench.folder import InputError
from workbench.foreign import adapt
from workbench.model import record

ATTENDED = {"query", "key", "value_own", "value"}
WRITES = {"attention_out": "attn", "feedforward_out": "mlp"}


@pytest.fixture(scope="module", params=["fused", "written"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return plain_model(kind)


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


def zeroed(model, *names, columns=slice(None)):
    """Copy a model and set columns of parameters of its second block to zero."""
    changed = copy.deepcopy(model)
    for name in names:
        changed.transformer["h"][1].get_parameter(name)[..., columns] = 0
    return changed


def last(kind):
    return {"fused": "attn.c_proj", "written": "attn.proj"}[kind]


def test_logits_are_those_of_every_position_and_their_loss_is_the_models(model, adapter, ids):
    targets = ids.roll(-1, 1)
    own, loss = model(ids, targets)
    assert model(ids)[0].shape == (3, 1, 257)
    with record(adapter, adapter.sites()) as seen:
        logits = adapter(ids)
    assert set(seen) == set(adapter.sites())
    assert torch.equal(logits, own)
    torch.testing.assert_close(logits[:, -1:], model(ids)[0])
    torch.testing.assert_close(F.cross_entropy(logits.flatten(0, 1), targets.flatten()), loss)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_sites_are_those_that_the_attention_allows(adapter, kind):
    found = {site.rpartition(".")[2] for site in adapter.sites()}
    assert found & ATTENDED == (ATTENDED if kind == "fused" else set())
    ends = {"embedding", "residual_in", "residual_out", "final_norm", "logits"}
    assert found - ATTENDED == ends | {"head_out", "feedforward_hidden", *WRITES}


def test_sizes_and_matrices_are_the_models(model, adapter, kind):
    config = adapter.config
    assert (config.n_layer, config.n_head, config.n_kv_head) == (2, 4, 4)
    assert (config.d_model, config.d_head, config.vocab_size) == (16, 4, 257)
    assert config.tie_embeddings == (kind == "fused") and adapter.longest == 32
    roles = {"fused": {"c_attn"}, "written": {"query", "key", "value"}}[kind]
    found = {each.role: each.weight for each in adapter.matrices() if each.block == 1}
    assert set(found) == roles | {"attention_out", "feedforward_in", "feedforward_out"}
    block = model.transformer["h"][1]
    assert found["attention_out"] is block.get_submodule(last(kind)).weight
    assert found["feedforward_out"] is block.mlp[2].weight
    own = dict(model.named_parameters())
    assert {n.removeprefix("network."): p for n, p in adapter.named_parameters()} == own


@pytest.mark.parametrize("write", WRITES)
def test_write_replaced_by_zero_is_a_part_whose_last_matrix_is_zero(
    model, adapter, kind, ids, write
):
    layer = last(kind) if write == "attention_out" else "mlp.2"
    with record(adapter, replace={f"visit.1.{write}": torch.zeros_like}):
        found = adapter(ids)
    changed = zeroed(model, f"{layer}.weight", f"{layer}.bias")
    torch.testing.assert_close(found, changed(ids, ids)[0])
    assert not torch.allclose(found, model(ids, ids)[0])


@pytest.mark.parametrize("site", ["head_out", "feedforward_hidden"])
def test_head_or_unit_replaced_by_zero_is_its_columns_at_zero(model, adapter, kind, ids, site):
    layer = last(kind) if site == "head_out" else "mlp.2"

    def silent(tensor):
        tensor = tensor.clone()
        if site == "head_out":
            tensor[:, 2] = 0
        else:
            tensor[..., 8:12] = 0
        return tensor

    with record(adapter, replace={f"visit.1.{site}": silent}):
        found = adapter(ids)
    changed = zeroed(model, f"{layer}.weight", columns=slice(8, 12))
    torch.testing.assert_close(found, changed(ids, ids)[0])


def test_queries_keys_and_values_make_what_heads_read(ids):
    adapter = adapt(plain_model("fused"))
    with record(adapter, [f"visit.1.{e}" for e in ("query", "key", "value", "head_out")]) as seen:
        adapter(ids)
    query, key, value, read = (seen[f"visit.1.{e}"] for e in ("query", "key", "value", "head_out"))
    scores = (query @ key.mT / 2).masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf)
    torch.testing.assert_close(scores.softmax(dim=-1) @ value, read)


def test_compiled_model_is_that_inside(ids):
    model = plain_model()
    assert adapt(SimpleNamespace(_orig_mod=model)).network is model


def replaced(model, forward):
    """Give one model a forward of its own."""
    model.forward = forward
    return model


def test_how_to_ask_for_logits_is_found_or_asked_for(ids):
    expected = plain_model()(ids, ids)[0]
    every = plain_model()
    every.__class__ = EveryPlace
    assert torch.equal(adapt(every)(ids), expected)
    one = plain_model()
    own = replaced(one, lambda ids: PlainModel.forward(one, ids)[0])
    with pytest.raises(InputError) as refused:
        adapt(own)
    assert "(1, 1, 257) from model(ids)" in refused.value.found
    assert "TypeError" in refused.value.found  # of a second argument
    assert "logits=lambda model, ids:" in refused.value.remedy
    found = adapt(own, logits=lambda model, ids: model.lm_head(model.trunk(ids)))
    assert torch.equal(found(ids), expected)
    with pytest.raises(InputError, match=r"logits and streams of .*\(1, 1, 257\)"):
        adapt(own, logits=lambda model, ids: model(ids))


def test_second_argument_that_changes_the_logits_is_no_target():
    model = plain_model()

    def forward(ids, kinds=None):
        every = PlainModel.forward(model, ids, ids)[0]
        return every[:, -1:] if kinds is None else every + kinds[..., None]

    with pytest.raises(InputError, match="from model\\(ids, ids\\)"):
        adapt(replaced(model, forward))


def test_heads_are_given_where_nothing_names_them():
    model = plain_model("written")
    for block in model.transformer["h"]:
        block.attn.heads, forward = 4, type(block.attn).forward
        block.attn.forward = forward.__get__(_Renamed(block.attn))
        del block.attn.n_head
    with pytest.raises(InputError, match=r"Pass n_head="):
        adapt(model)
    with pytest.raises(InputError, match=r"5 heads of 16 channels"):
        adapt(model, n_head=5)
    assert adapt(model, n_head=4).config.n_head == 4
    fused = plain_model("fused")
    for block in fused.transformer["h"]:
        block.attn.forward = type(block.attn).forward.__get__(_Renamed(block.attn))
        del block.attn.n_head
    assert adapt(fused).config.n_head == 4  # of the calls


class _Renamed:
    """An attention whose number of heads has a name that nobody knows."""

    def __init__(self, attention):
        self.attention, self.n_head = attention, 4

    def __getattr__(self, name):
        return getattr(self.attention, name)


def test_embedding_head_and_blocks_are_found_or_given(ids):
    model = plain_model(length=257)  # as many positions as ids
    assert adapt(model).embedding is model.transformer["wte"]
    model = plain_model()
    model.lm_head, head = None, model.lm_head
    forward = lambda ids: F.linear(model.trunk(ids), model.transformer["wte"].weight)  # noqa: E731
    with pytest.raises(InputError, match="0 nn.Linear of the logits.*Pass embedding=, or head="):
        adapt(replaced(model, forward))
    found = adapt(model, head=model.transformer["wte"])
    assert found.config.tie_embeddings and "final_norm" in found.sites()
    torch.testing.assert_close(found.head(found.hidden(ids)), head(model.trunk(ids)))
    blocks = list(model.transformer["h"])
    given = adapt(model, head=model.transformer["wte"], blocks=blocks)
    assert given.sites() == found.sites()


def test_blocks_may_stand_in_a_sequence_beside_a_longer_list(ids):
    model = plain_model()
    model.transformer["h"] = nn.Sequential(*model.transformer["h"])
    model.others = nn.ModuleList(nn.Linear(2, 2) for _ in range(5))
    assert adapt(model).sites() == adapt(plain_model()).sites()


def test_model_that_is_not_causal_is_refused():
    model = plain_model("written")
    for block in model.transformer["h"]:
        block.attn.forward = lambda x: x.mean(1, keepdim=True).expand_as(x)
    with pytest.raises(InputError, match="not causal"):
        adapt(model)
    with pytest.raises(InputError, match="not causal"):
        adapt(foreign_model("bert", intermediate_size=24))


def test_model_without_attention_is_refused_by_its_parts():
    with pytest.raises(InputError, match=r"no attention in MambaBlock \(norm, mixer\)"):
        adapt(foreign_model("mamba", state_size=4))


def test_block_that_is_visited_twice_is_refused():
    model = plain_model()
    block = model.transformer["h"][0]
    model.transformer["h"].append(block)
    with pytest.raises(InputError, match="called once each"):
        adapt(model)


def test_window_is_not_offered_as_plain(ids):
    for window, is_whole in ((4, False), (99, True)):
        model = plain_model(length=64)
        for block in model.transformer["h"]:
            block.attn.forward = _windowed(block.attn, window)
        found = {site.rpartition(".")[2] for site in adapt(model).sites()}
        assert found & ATTENDED == (ATTENDED if is_whole else set())


def _windowed(attention, window):
    """Make an attention that reads a few positions back, with all arguments named."""

    def forward(x):
        parts = attention.c_attn(x).split(16, dim=-1)
        query, key, value = (e.unflatten(-1, (4, 4)).transpose(1, 2) for e in parts)
        near = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        near &= ~near.tril(-window)
        mixed = F.scaled_dot_product_attention(query=query, key=key, value=value, attn_mask=near)
        return attention.c_proj(mixed.transpose(1, 2).flatten(2))

    return forward
