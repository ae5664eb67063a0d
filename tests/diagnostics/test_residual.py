"""The stream: against numpy on whole tensors, planted faults, and variations that are healthy."""

import numpy as np
import pytest
import torch

from workbench.diagnostics import sweep
from workbench.diagnostics.residual import ROLES, residual
from workbench.model import record
from workbench.readings.residual import residual as reading
from workbench.text import windows


def measured(model, data):
    reducer = residual(model)
    split = data.validation, data.tokenizer
    return reducer.result(sweep(model, *split, sequence_length=16, reducers=[reducer]))


def tensors(model, data):
    """Run the model on all rows; return every site as float64."""
    window = next(windows(data.validation, sequence_length=16, batch=10_000))
    with torch.inference_mode(), record(model, model.sites()) as seen:
        model(torch.from_numpy(window.inputs))
    return {name: tensor.double().numpy() for name, tensor in seen.items()}


def test_measures_are_those_of_the_tensors(tiny_network, tiny_data):
    found, seen = measured(tiny_network, tiny_data), tensors(tiny_network, tiny_data)
    for visit in range(2):
        x, attended, fed = (seen[f"visit.{visit}.{role}"] for role in ROLES)
        before = {"attention_out": x, "feedforward_out": x + attended}
        for role, tensor in zip(ROLES, (x, attended, fed), strict=True):
            cell, later = found.sel(visit=visit, role=role), tensor[:, 1:]
            norm = np.sqrt((later**2).mean(-1))
            expected = {
                "norm": norm.mean(),
                "kurtosis": ((later**4).mean(-1) / norm**4).mean(),
                "outlier": (
                    np.abs(later).max(-1) / np.partition(np.abs(later), 7, axis=-1)[..., 7]
                ).mean(),
                "peak": np.abs(tensor).max(),
                "peak_position": np.argwhere(np.abs(tensor) == np.abs(tensor).max())[0][1],
                "peak_channel": np.argwhere(np.abs(tensor) == np.abs(tensor).max())[0][2],
            }
            if role != "residual_in":
                under = np.linalg.norm(before[role][:, 1:], axis=-1)
                expected["write_share"] = (np.linalg.norm(later, axis=-1) / under).mean()
            for name, value in expected.items():
                assert float(cell[name]) == pytest.approx(value, rel=1e-5), name
        growth = np.linalg.norm(x + attended + fed, axis=-1) / np.linalg.norm(x, axis=-1)
        assert float(found.growth[visit]) == pytest.approx(growth[:, 1:].mean(), rel=1e-5)
        hidden = seen[f"visit.{visit}.feedforward_hidden"]
        assert float(found.zero_share[visit]) == pytest.approx((hidden[:, 1:] == 0).mean())
        assert float(found.dead_share[visit]) == (hidden == 0).all(axis=(0, 1)).mean()
    near = np.abs(seen["logits"][:, 1:]) > 0.9 * 30
    assert float(found.softcap_logit_share) == pytest.approx(near.mean(), abs=1e-7)
    assert float(found.softcap_token_share) == pytest.approx(near.any(-1).mean(), abs=1e-7)
    assert np.isnan(found.write_share.sel(role="residual_in")).all()


def test_planted_dead_units_are_counted(tiny_network, tiny_data):
    with torch.no_grad():
        tiny_network.blocks[1].mlp.fc.weight[:8] = 0.0
    found = measured(tiny_network, tiny_data)
    assert found.dead_share.values.tolist() == [0.0, 8 / 32]
    assert "visit 1 (25%)" in reading(found)


def test_planted_massive_channel_is_located(tiny_network, tiny_data):
    with torch.no_grad():
        tiny_network.blocks[0].mlp_scale[5] = 1e6
    found = measured(tiny_network, tiny_data)
    assert int(found.peak_channel.sel(visit=0, role="feedforward_out")) == 5
    assert int(found.peak_channel.sel(visit=1, role="residual_in")) == 5
    assert "massive activation in channel 5" in reading(found)


def test_a_massive_activation_is_found_where_the_ratio_is_not_largest(tiny_network, tiny_data):
    found = measured(tiny_network, tiny_data)
    found["peak_ratio"][:], found["peak"][:] = 5.0, 5.0
    found.peak_ratio[0, 1] = 9000.0  # of a small write: a magnitude of 5
    assert "massive" not in reading(found)
    found.peak_ratio[1, 0], found.peak[1, 0] = 2000.0, 500.0
    text = reading(found)
    assert (
        "of residual_in at visit 1, 2,000 times" in text and "the largest of 1 of 6 sites" in text
    )
    found["peak_ratio"] = found.peak_ratio * np.nan
    assert "massive" not in reading(found)


def test_writes_that_are_not_finite_are_counted(tiny_network, tiny_data):
    found = measured(tiny_network, tiny_data)
    assert "not finite" not in reading(found), "the stream itself is no write"
    found.write_share[1, 1] = np.nan
    found["write_share_standard_error"] = found.write_share * np.nan
    text = reading(found)
    assert "1 of 4 sites not finite" in text and "error unknown" in text and "nan" not in text


def test_planted_idle_write_and_saturated_softcap_are_told(tiny_network, tiny_data):
    assert "ablate it" not in reading(measured(tiny_network, tiny_data))
    with torch.no_grad():
        tiny_network.blocks[1].attn_scale.mul_(1e-4)
        tiny_network.tok_emb.weight.mul_(100)
    text = reading(measured(tiny_network, tiny_data))
    assert text.startswith("Attention out at visit 1 writes least") and "ablate it" in text
    assert "softcap" in text


def test_healthy_variations_raise_no_alarm(tiny_network, tiny_data):
    """Nine in ten hidden values at zero, a stream that grows: by design, not by fault."""
    with torch.no_grad():
        for block in tiny_network.blocks:
            block.mlp_scale.fill_(3.0)
    found = measured(tiny_network, tiny_data)
    assert (found.growth > 1).all()
    found["zero_share"][:] = 0.9
    text = reading(found)
    assert not any(word in text for word in ("hidden units", "massive", "softcap", "ablate"))
