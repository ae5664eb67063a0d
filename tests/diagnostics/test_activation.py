"""Ranks of activations: against numpy on the vectors themselves, planted and healthy."""

import numpy as np
import pytest
import torch

from workbench.diagnostics import gaussian_effective_rank, sweep
from workbench.diagnostics.activation import SITES, activation, chance_rank
from workbench.model import record
from workbench.text import windows


def measured(model, data, **options):
    """Sweep the validation split with this reducer alone."""
    reducer = activation(model)
    split = data.validation, data.tokenizer
    return reducer.result(sweep(model, *split, sequence_length=16, reducers=[reducer], **options))


def vectors(model, data, site):
    """Run the model on all rows and return a site's vectors after position 0, with their group."""
    window = next(windows(data.validation, sequence_length=16, batch=10_000))
    with torch.inference_mode(), record(model, [site]) as seen:
        model(torch.from_numpy(window.inputs))
    found = seen[site].numpy().astype(np.float64)
    if found.ndim == 4:
        found = np.concatenate(list(found.transpose(1, 0, 2, 3)), axis=-1)
    group = np.repeat(data.validation.group_of(window.offsets[:, 0]), 15)
    return found[:, 1:].reshape(-1, found.shape[-1]), group


def entropy_rank(x):
    """Return exp of the entropy of singular values, by decomposing the vectors themselves."""
    sigma = np.linalg.svd(x, compute_uv=False)
    p = sigma / sigma.sum()
    return np.exp(-(p[p > 1e-12] * np.log(p[p > 1e-12])).sum()), sigma


def test_ranks_are_those_of_the_vectors(tiny_network, tiny_data):
    found = measured(tiny_network, tiny_data)
    for role, site in SITES.items():
        x, group = vectors(tiny_network, tiny_data, f"visit.1.{site}")
        cell = found.sel(visit=1, role=role)
        centred, sigma = entropy_rank(x - x.mean(axis=0))
        assert float(cell.width) == x.shape[1] and found.attrs["tokens"] == len(x)
        np.testing.assert_allclose(cell.activation_rank, centred, rtol=1e-5)
        np.testing.assert_allclose(cell.activation_rank_uncentred, entropy_rank(x)[0], rtol=1e-5)
        np.testing.assert_allclose(
            cell.activation_participation,
            (sigma**2).sum() ** 2 / (sigma**4).sum(),
            rtol=1e-5,
        )
        without = []
        for fold in range(8):
            kept = x[group % 8 != fold]
            without.append(entropy_rank(kept - kept.mean(axis=0))[0])
        error = np.sqrt(7 / 8 * np.square(np.array(without) - np.mean(without)).sum())
        np.testing.assert_allclose(cell.activation_rank_standard_error, error, rtol=1e-3)


def test_planted_thin_matrix_is_seen_and_its_neighbours_are_not_accused(tiny_network, tiny_data):
    before = measured(tiny_network, tiny_data)
    with torch.no_grad():
        weight = tiny_network.blocks[1].attn.c_v.weight
        weight.copy_(weight[:, :1] * weight[:1])
    after = measured(tiny_network, tiny_data)
    assert float(after.activation_rank.sel(visit=1, role="value")) == pytest.approx(1, abs=1e-3)
    for role in ("query", "key", "residual_in"):
        cell = {"visit": 1, "role": role}
        np.testing.assert_allclose(
            after.activation_rank.sel(cell), before.activation_rank.sel(cell)
        )


def test_constant_activation_has_no_rank(tiny_network, tiny_data):
    with torch.no_grad():
        tiny_network.blocks[0].attn.proj.weight.zero_()
    cell = measured(tiny_network, tiny_data).sel(visit=0, role="attention_out")
    assert np.isnan(cell.activation_rank) and np.isnan(cell.activation_rank_ratio)


def test_diverged_weights_are_not_measured(tiny_network, tiny_data):
    with torch.no_grad():
        tiny_network.blocks[1].attn.c_q.weight[0, 0] = torch.nan
    found = measured(tiny_network, tiny_data).activation_rank
    assert np.isnan(found.sel(visit=1, role="query")) and np.isfinite(found.sel(visit=0)).all()


@pytest.mark.parametrize(("count", "width"), [(1000, 100), (64, 256), (512, 512), (8191, 128)])
def test_chance_is_that_of_drawn_gaussian_vectors(count, width):
    drawn = gaussian_effective_rank(count, width)
    assert chance_rank(count, width) == pytest.approx(drawn, rel=0.01)
    assert chance_rank(width, count) == chance_rank(count, width)
