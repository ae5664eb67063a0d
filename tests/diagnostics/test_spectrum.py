"""Spectra in batches, their tails, and heads, against slower routes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.diagnostics import (
    effective_rank,
    head_rank,
    power_law,
    singular_values,
    spectra,
    spectral_ranks,
    spectral_shape,
)


def test_batched_spectra_are_those_of_one_by_one():
    draw = torch.Generator().manual_seed(0)
    shapes = [(12, 30), (30, 12), (20, 20), (12, 30), (1, 5)]
    weights = [torch.randn(*shape, generator=draw) for shape in shapes]
    weights += [torch.zeros(20, 20), torch.full((20, 20), torch.nan), weights[2].bfloat16()]
    weights.append(weights[3][:, :2] @ weights[3][:2])  # thin
    for weight, found in zip(weights, spectra(weights), strict=True):
        np.testing.assert_allclose(found, singular_values(weight), rtol=1e-9, atol=1e-12)
        if torch.isfinite(weight).all():
            slow = np.linalg.svd(weight.double().numpy(), compute_uv=False)
            np.testing.assert_allclose(found, slow, rtol=1e-9, atol=1e-9)
        else:
            assert np.isnan(found).all()


def slow_power_law(energy):
    """Try the tail that begins at each value, one after the other."""
    values = np.sort(energy)
    best = (np.inf, np.nan, 0)
    for begin in range(len(values) - 1):
        tail = values[begin:]
        alpha = 1 + len(tail) / np.log(tail / tail[0]).sum()
        model = 1 - (tail / tail[0]) ** (1 - alpha)
        distance = max(abs(model[i] - i / len(tail)) for i in range(len(tail)))
        best = min(best, (distance, alpha, len(tail)))
    return best


@pytest.mark.parametrize("size", [20, 63, 64, 65, 150])
def test_power_law_is_that_of_a_slow_loop(size):
    energy = np.random.default_rng(size).pareto(1.5, size) + 1
    found = power_law(energy)
    expected = slow_power_law(energy)
    assert found["alpha_distance"] == pytest.approx(expected[0], rel=1e-9)
    assert (found["alpha"], found["alpha_tail"]) == pytest.approx(expected[1:], rel=1e-9)


def test_power_law_finds_a_planted_exponent_and_refuses_few_values():
    energy = (1 - np.random.default_rng(3).uniform(size=2000)) ** (-1 / 1.8)  # density x**-2.8
    assert power_law(energy)["alpha"] == pytest.approx(2.8, rel=0.1)
    assert all(np.isnan(each) for each in power_law(energy[:19]).values())


@given(st.integers(2, 40), st.integers(0, 1000), st.floats(0, 3))
def test_counted_ranks_hold_their_share(size, seed, decay):
    sigma = np.sort(np.random.default_rng(seed).uniform(0.1, 1, size))[::-1] ** (1 + decay)
    found = spectral_ranks(sigma, tolerance=0)
    k, n = int(found["rank_99"]), int(found["energy_rank_95"])
    assert sigma[:k].sum() >= (0.99 - 1e-9) * sigma.sum() and n <= k <= size
    assert np.sum(sigma[: n - 1] ** 2) < 0.95 * np.sum(sigma**2)
    shape = spectral_shape(sigma, shape=(size, size))
    assert 0 <= shape["spectral_entropy"] <= 1 + 1e-12
    expected = np.log(found["effective_rank_energy"]) / np.log(shape["rank_float64"])
    assert shape["spectral_entropy"] == pytest.approx(expected, abs=1e-12)


def test_noise_reaches_its_own_edge_and_a_spike_lies_beyond_it():
    noise = np.random.default_rng(0).normal(size=(200, 400)).astype(np.float32)
    spiked = noise + 0.5
    ranks = [
        spectral_shape(singular_values(torch.from_numpy(each)), shape=each.shape)
        for each in (noise, spiked)
    ]
    assert ranks[0]["marchenko_pastur_rank"] == pytest.approx(1, abs=0.05)
    assert ranks[1]["marchenko_pastur_rank"] < 0.1
    assert ranks[0]["lambda_max"] == pytest.approx(np.linalg.norm(noise, 2) ** 2, rel=1e-5)
    assert ranks[0]["log_norm"] == pytest.approx(np.log10(np.sum(noise.astype(float) ** 2)))


def test_a_dead_head_is_seen_where_its_matrix_hides_it(tiny_network):
    healthy = head_rank(tiny_network)
    d_head = tiny_network.config.d_head
    with torch.no_grad():
        rows = tiny_network.blocks[1].attn.c_q.weight[d_head : 2 * d_head]
        rows.copy_(torch.outer(torch.ones(d_head), rows[0]))
    found = head_rank(tiny_network)
    changed = (found.head_rank != healthy.head_rank) & healthy.head_rank.notnull()
    assert np.argwhere(changed.values).tolist() == [[1, 1, 0]]
    assert float(found.head_rank[1, 1, 0]) == pytest.approx(1, abs=1e-6)
    groups = tiny_network.config.n_kv_head
    assert np.isnan(found.head_rank.sel(role=["key", "value"])[:, groups:]).all()


def test_a_head_is_its_slice(tiny_network):
    found, width = head_rank(tiny_network), tiny_network.config.d_head
    out = tiny_network.blocks[0].attn.proj.weight[:, width : 2 * width]
    sigma = np.linalg.svd(out.detach().double().numpy(), compute_uv=False)
    expected = spectral_ranks(sigma, tolerance=0)["effective_rank"]
    assert float(found.head_rank.sel(block=0, head=1, role="attention_out")) == pytest.approx(
        expected
    )
    assert set(effective_rank(tiny_network).dims) == {"matrix", "singular"}
