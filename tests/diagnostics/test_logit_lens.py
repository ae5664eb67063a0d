"""The lens against a slow loop; at the last visit it is the model itself."""

import sys

import numpy as np
import pytest
import torch

from workbench.diagnostics import sweep
from workbench.diagnostics.logit_lens import EVERY, logit_lens
from workbench.model import record
from workbench.result import check
from workbench.text import windows

logit_lens_module = sys.modules[logit_lens.__module__]


def lens(network, data, **options):
    reducer = logit_lens(network)
    table = sweep(
        network,
        data.validation,
        data.tokenizer,
        sequence_length=16,
        reducers=[reducer],
        **options,
    )
    return reducer.result(table), table


def test_last_visit_is_the_models_own_rank(tiny_network, tiny_data):
    found, table = lens(tiny_network, tiny_data)
    check(found)
    kept = table.isel(token=slice(None, None, EVERY))  # every row is sampled: the text is short
    assert found.attrs["tokens"] == kept.sizes["token"]
    last = found.isel(visit=-1)
    for name, share in (("rank_low", 0.25), ("rank_median", 0.5), ("rank_high", 0.75)):
        own = np.quantile(kept["rank"].values, share, method="inverted_cdf")
        assert int(last[name]) == pytest.approx(own, abs=1)
    assert float(last["loss"]) == pytest.approx(kept.nll.values.mean(), rel=1e-5)
    assert float(last["first"]) == pytest.approx((kept["rank"].values == 1).mean(), abs=2e-3)
    assert float(last.loss_standard_error) > 0


def test_first_visit_by_loop_with_its_own_norm(tiny_network, tiny_data):
    found, _ = lens(tiny_network, tiny_data)
    window = next(windows(tiny_data.validation, sequence_length=16, batch=10**6))
    losses = []
    for inputs, targets in zip(window.inputs, window.targets, strict=True):
        sites = [f"visit.0.{name}" for name in ("residual_in", "attention_out", "feedforward_out")]
        with torch.no_grad(), record(tiny_network, sites) as seen:
            tiny_network(torch.from_numpy(inputs[None]))
        out = sum(seen[site][0].double() for site in sites)
        for position in range(0, 16, EVERY):
            normed = out[position] / out[position].square().mean().sqrt()
            z = tiny_network.head_weight.detach().double() @ normed
            logits = 30 * torch.tanh(z / 30)
            losses.append(float(torch.logsumexp(logits, 0) - logits[targets[position]]))
    assert float(found["loss"][0]) == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_gain_of_a_visit_is_paired_over_targets(tiny_network, tiny_data, monkeypatch):
    losses = []
    entropy = logit_lens_module.F.cross_entropy

    def kept(*given, **options):
        losses.append(entropy(*given, **options))
        return losses[-1]

    monkeypatch.setattr(logit_lens_module.F, "cross_entropy", kept)
    found, _ = lens(tiny_network, tiny_data, batch=10**6)
    half = len(losses) // found.sizes["visit"]
    fall = torch.cat(losses[:half]).double() - torch.cat(losses[half : 2 * half]).double()
    assert np.isnan(found.gain[0]) and found.gain.attrs["units"] == "nat/token"
    assert float(found.gain[1]) == pytest.approx(float(fall.mean()), abs=1e-6)
    assert float(found.gain[1]) == pytest.approx(float(found["loss"][0] - found["loss"][1]))
    with torch.no_grad():  # the second visit writes next to nothing: its losses are the first's
        tiny_network.blocks[1].mlp_scale.fill_(1e-3)
        tiny_network.blocks[1].attn_scale.zero_()
        tiny_network.blocks[1].resid_mix[0] = 1
        tiny_network.blocks[1].resid_mix[1] = 0
        tiny_network.skip_weights.zero_()
    alike, _ = lens(tiny_network, tiny_data)
    quadrature = np.hypot(*alike.loss_standard_error.values)
    assert 0 < float(alike.gain_standard_error[1]) < quadrature / 100


def test_batches_and_other_reducers_change_nothing(tiny_network, tiny_data):
    one, _ = lens(tiny_network, tiny_data, batch=1)
    many, _ = lens(tiny_network, tiny_data, batch=7)
    for name in one.data_vars:
        np.testing.assert_allclose(one[name], many[name], atol=1e-6)


def test_a_visit_that_destroys_the_answer_is_seen_and_an_idle_one_is_level(tiny_network, tiny_data):
    with torch.no_grad():
        tiny_network.blocks[1].mlp_scale.zero_()
        tiny_network.blocks[1].attn_scale.zero_()
        tiny_network.blocks[1].resid_mix[0] = 1
        tiny_network.blocks[1].resid_mix[1] = 0
        tiny_network.skip_weights.zero_()
    idle, _ = lens(tiny_network, tiny_data)
    assert float(idle["loss"][0]) == pytest.approx(float(idle["loss"][1]), rel=1e-6)
    with torch.no_grad():
        tiny_network.blocks[1].mlp_scale.fill_(3.0)
    moved, _ = lens(tiny_network, tiny_data)
    assert float(moved["loss"][0]) == pytest.approx(float(idle["loss"][0]), rel=1e-6)
    assert abs(float(moved["loss"][1] - moved["loss"][0])) > 0.05
