"""Sites: all reachable, replaceable, and gone without a trace when the block ends."""

import pytest
import torch

from workbench.folder import InputError
from workbench.model import record
from workbench.model.network import untouched

IDS = torch.arange(20).reshape(2, 10)


def logits(network):
    with torch.no_grad():
        return network(IDS)


def test_every_listed_site_is_reached_once_and_in_order(tiny_network):
    order = []
    note = {site: lambda x, site=site: order.append(site) or x for site in tiny_network.sites()}
    with record(tiny_network, tiny_network.sites(), replace=note) as seen:
        out = logits(tiny_network)
    assert tuple(order) == tiny_network.sites() == tuple(seen)
    assert len(set(order)) == len(order)
    assert torch.equal(seen["logits"], out)
    promised = (
        "query key value attention_out feedforward_hidden feedforward_out residual_in".split()
    )
    assert {f"visit.1.{name}" for name in promised} <= set(seen)


def test_shapes_are_as_documented(tiny_network):
    with record(tiny_network, tiny_network.sites()) as seen:
        logits(tiny_network)
    stream, config = (2, 10, 16), tiny_network.config
    expected = {
        "residual_in": stream,
        "value_own": (2, config.n_kv_head, 10, 4),
        "value": (2, config.n_kv_head, 10, 4),
        "query": (2, config.n_head, 10, 4),
        "key": (2, config.n_kv_head, 10, 4),
        "attention_out": stream,
        "feedforward_hidden": (2, 10, 32),
        "feedforward_out": stream,
    }
    for name, shape in expected.items():
        assert seen[f"visit.0.{name}"].shape == shape, name
    assert seen["embedding"].shape == seen["final_norm"].shape == stream
    assert seen["logits"].shape == (2, 10, 257)


def test_recorded_writes_add_up_to_the_stream(tiny_network):
    """Rebuild residual_out from the embedding, the writes and the learned mixes alone."""
    with record(tiny_network, tiny_network.sites()) as seen:
        logits(tiny_network)
    first = x = seen["embedding"]
    kept = None
    for visit, block in enumerate(tiny_network.blocks):
        if visit == 1:
            x = x + tiny_network.skip_weights[0] * kept
        x = block.resid_mix[0] * x + block.resid_mix[1] * first
        torch.testing.assert_close(x, seen[f"visit.{visit}.residual_in"])
        x = x + seen[f"visit.{visit}.attention_out"] + seen[f"visit.{visit}.feedforward_out"]
        kept = x
    torch.testing.assert_close(x, seen["residual_out"])


def test_only_what_was_asked_for_is_kept(tiny_network):
    with record(tiny_network, ["visit.1.key"]) as seen:
        logits(tiny_network)
    assert list(seen) == ["visit.1.key"]


def test_watching_changes_nothing_and_leaves_nothing(tiny_network):
    before, attributes = logits(tiny_network), set(vars(tiny_network))
    with record(tiny_network, tiny_network.sites()):
        assert torch.equal(logits(tiny_network), before)
    assert tiny_network.tap is untouched and set(vars(tiny_network)) == attributes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny_network.modules())
    assert torch.equal(logits(tiny_network), before)


@pytest.mark.parametrize("inside", [True, False], ids=["in the pass", "in the block"])
def test_an_exception_leaves_nothing(tiny_network, inside):
    def fail(_):
        raise RuntimeError("planted")

    before = logits(tiny_network)
    with (
        pytest.raises(RuntimeError, match="planted"),
        record(tiny_network, ["key"][:0], replace={"visit.0.key": fail if inside else lambda x: x}),
    ):
        logits(tiny_network)
        fail(None)
    assert tiny_network.tap is untouched
    assert torch.equal(logits(tiny_network), before)


def test_replacement_goes_on_and_is_what_is_recorded(tiny_network):
    site, before = "visit.0.attention_out", logits(tiny_network)
    with record(
        tiny_network, [site, "visit.0.feedforward_out"], replace={site: torch.zeros_like}
    ) as seen:
        ablated = logits(tiny_network)
    assert not seen[site].any() and seen["visit.0.feedforward_out"].any()
    with torch.no_grad():  # the same ablation in the weights
        tiny_network.blocks[0].attn_scale.zero_()
    torch.testing.assert_close(ablated, logits(tiny_network))
    assert not torch.allclose(ablated, before)


def test_replaced_logits_are_returned(tiny_network):
    with record(tiny_network, replace={"logits": lambda z: z + 1}):
        raised = logits(tiny_network)
    torch.testing.assert_close(raised, logits(tiny_network) + 1)


def test_nested_recordings_end_one_by_one(tiny_network):
    before = logits(tiny_network)
    with record(tiny_network, ["embedding", "logits"]) as outer:
        with (
            pytest.raises(RuntimeError),
            record(tiny_network, ["embedding"], replace={"embedding": lambda x: 2 * x}) as inner,
        ):
            logits(tiny_network)
            raise RuntimeError
        torch.testing.assert_close(inner["embedding"], 2 * outer["embedding"])
        assert not torch.allclose(outer["logits"], before)
        logits(tiny_network)
        assert torch.equal(outer["logits"], before), "the inner edit is gone, the outer watch stays"
    assert tiny_network.tap is untouched


def test_the_latest_pass_counts_and_gradients_flow(tiny_network):
    with record(tiny_network, ["embedding"]) as seen:
        tiny_network(IDS[:1])
        tiny_network(IDS).sum().backward()
    assert seen["embedding"].shape[0] == 2 and seen["embedding"].requires_grad
    assert tiny_network.tok_emb.weight.grad is not None


@pytest.mark.parametrize("way", ["sites", "replace"])
def test_an_unknown_site_is_named_with_the_nearest(tiny_network, way):
    name = "visit.1.keys"
    wanted = {"sites": [name]} if way == "sites" else {"replace": {name: untouched}}
    with pytest.raises(InputError, match=r"visit\.1\.keys.*Nearest: visit\.1\.key"):
        with record(tiny_network, **wanted):
            pass
    with pytest.raises(InputError, match=r"visit\.2\.key"), record(tiny_network, ["visit.2.key"]):
        pass
    assert tiny_network.tap is untouched
