"""Parts of margins: they add up, and agree with a network whose other writes are zero."""

import numpy as np
import pytest
import torch

from workbench.diagnostics import components, explain
from workbench.diagnostics.branch import output_head, states_at
from workbench.model import ModelConfig, new_network, record
from workbench.model.value_residual import ValueResidualConfig
from workbench.result import check
from workbench.text.world import Record

CONTEXTS = [[1, 5, 2], [3, 3, 8, 1, 9], [7], [4, 11, 6, 2, 2, 10]]
PIECES = [f"p{n}" for n in range(13)]


@pytest.fixture(params=[False, True])
def network(request):
    """Three blocks with a skip, value residual, mixes and scales that are all random."""
    config = ModelConfig(
        n_layer=3,
        n_head=2,
        n_kv_head=1,
        d_model=16,
        vocab_size=13,
        tie_embeddings=not request.param,
        output_bias=request.param,
        value_residual=ValueResidualConfig(),
    )
    model = new_network(config, seed=0)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.5, generator=generator)
    return model.eval()


def explained(model, contexts=CONTEXTS):
    records = [
        Record(id=f"r{n}", prompt="", target="p1", profile="x", source="s", fact=f"f{n // 2}")
        for n in range(len(contexts))
    ]
    states = states_at(
        model,
        records=records,
        contexts=contexts,
        targets=np.ones(len(contexts), dtype=np.int64),
        pieces=PIECES,
    )
    mu = states.hidden.mean(axis=0)
    return states, explain(model, states, PIECES, reference=(mu, "themselves"))


def test_components_add_up_to_the_margin(network):
    states, margins = explained(network)
    found = check(components(network, states, margins, batch=3))
    scale = 1e-4 * found.attrs["logit_range"]
    total = found.contribution.sum("component") + found.residual
    np.testing.assert_allclose(total, margins.margin, atol=1e-9)
    assert found.attrs["worst_residual"] == float(abs(found.residual).max()) < scale
    assert found.sizes["component"] == 1 + 3 * (2 + 1) + 1
    np.testing.assert_allclose(found.sel(component="output_bias").contribution, margins.bias)
    np.testing.assert_allclose(found["mean"], found.contribution.mean("record"))
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.tap.__name__ == "untouched"


def test_each_component_is_the_stream_when_all_other_writes_are_zero(network):
    """Writes are put back as they were, all but one as zero; the norm keeps its scale."""
    states, margins = explained(network)
    found = components(network, states, margins)
    head = output_head(network)
    direction = head.weight[margins.winner_id.values] - head.weight[margins.rival_id.values]
    sites = [
        site
        for site in network.sites()
        if site.split(".")[-1] in ("embedding", "head_out", "feedforward_out")
    ]
    for row, context in enumerate(CONTEXTS):
        with torch.no_grad(), record(network, [*sites, "residual_out"]) as own:
            network(torch.tensor([context]))
        scale = own["residual_out"][0, -1].double().square().mean().sqrt()
        for name in found.component.values[:-1]:
            site = next(each for each in sites if str(name).startswith(each))
            kept = {each: torch.zeros_like(own[each]) for each in sites}
            if site.endswith("head_out"):
                at = int(str(name).split(".")[-1])
                kept[site][:, at] = own[site][:, at]
            else:
                kept[site] = own[site]
            edits = {each: (lambda value: lambda _: value)(kept[each]) for each in sites}
            with torch.no_grad(), record(network, ["residual_out"], replace=edits) as seen:
                network(torch.tensor([context]))
            alone = seen["residual_out"][0, -1].double() / scale
            expected = float(alone.numpy() @ direction[row])
            assert float(found.contribution.sel(component=name)[row]) == pytest.approx(
                expected, abs=1e-4 * found.attrs["logit_range"]
            )


def test_a_planted_feedforward_is_named_and_its_healthy_twin_is_not(network):
    with torch.no_grad():
        network.blocks[1].mlp.proj.weight.mul_(30)
    states, margins = explained(network)
    found = components(network, states, margins)
    sizes = abs(found.contribution).mean("record")
    assert sizes.drop_sel(component="output_bias").idxmax() == "visit.1.feedforward_out"
    with torch.no_grad():
        network.blocks[1].mlp.proj.weight.zero_()
    twin = components(network, *explained(network))
    assert (twin.contribution.sel(component="visit.1.feedforward_out") == 0).all()


def test_results_do_not_depend_on_batches(network):
    states, margins = explained(network)
    one = components(network, states, margins, batch=1).contribution
    np.testing.assert_allclose(
        components(network, states, margins, batch=4).contribution, one, atol=1e-5
    )
