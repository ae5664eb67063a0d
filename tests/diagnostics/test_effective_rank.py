import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy, kurtosis, ortho_group

from workbench.diagnostics import (
    effective_rank,
    gaussian_effective_rank,
    singular_values,
    spectral_ranks,
)
from workbench.diagnostics.spectrum import gaussian_spectra
from workbench.model import Network, new_network, preset

EPS = float(torch.finfo(torch.float32).eps)
RANKS = ("stable_rank", "participation_ratio", "effective_rank_energy", "effective_rank")


def small(*, seed=0, **fields):
    """A network of Gaussian matrices, as if its training had left them as flat as chance."""
    config = preset(
        "demo", **{"n_layer": 3, "n_head": 2, "n_kv_head": 1, "d_model": 48, "vocab_size": 96}
    )
    network = Network(preset("baseline", **{**vars(config), **fields}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for matrix in network.matrices():
            matrix.weight.normal_(generator=generator)
    return network


def with_condition(rows, columns, condition, *, seed=0):
    """A matrix whose singular values fall from 1 to 1 / condition, evenly in the logarithm."""
    size = min(rows, columns)
    sigma = np.logspace(0, -np.log10(condition), size)
    left = ortho_group.rvs(rows, random_state=seed)[:, :size]
    right = ortho_group.rvs(columns, random_state=seed + 1)[:size]
    return sigma, torch.from_numpy((left * sigma) @ right)


@pytest.mark.parametrize("shape", [(64, 64), (96, 40), (40, 96), (1, 30), (30, 1)])
def test_singular_values_are_those_of_numpy(shape):
    matrix = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    reference = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    found = singular_values(torch.from_numpy(matrix))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, reference, rtol=1e-9, atol=1e-9 * reference[0])


@pytest.mark.parametrize("condition", [1e3, 1e4, 1e5, 1e6, 1e7, 1e8])
@pytest.mark.parametrize("shape", [(40, 90), (90, 40)])
def test_ill_conditioned_matrices_keep_their_small_values(condition, shape):
    sigma, matrix = with_condition(*shape, condition)
    found = singular_values(matrix)
    np.testing.assert_allclose(found, sigma, rtol=1e-4)
    tolerance = max(shape) * EPS
    ranks = spectral_ranks(found, tolerance=tolerance)
    assert ranks["condition_number"] == pytest.approx(condition, rel=1e-4)
    assert ranks["numerical_rank"] == np.sum(sigma > tolerance)
    assert ranks["numerical_rank"] == np.linalg.matrix_rank(matrix.numpy(), rtol=tolerance)


def test_singular_matrix_has_its_rank_and_no_finite_condition():
    rng = np.random.default_rng(2)
    thin = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 80))
    ranks = spectral_ranks(singular_values(torch.from_numpy(thin)), tolerance=80 * EPS)
    assert ranks["numerical_rank"] == 5
    assert ranks["condition_number"] > 1e12
    assert ranks["effective_rank"] <= 5


@pytest.mark.parametrize("weight", [torch.zeros(8, 12), torch.full((8, 12), torch.nan)])
def test_what_has_no_spectrum_is_nan_and_not_zero(weight):
    ranks = spectral_ranks(singular_values(weight), tolerance=1e-6)
    assert all(np.isnan(ranks[name]) for name in (*RANKS, "condition_number"))


def test_numerical_rank_tells_zeros_from_unknown():
    assert spectral_ranks(np.zeros(4), tolerance=1e-6)["numerical_rank"] == 0
    assert np.isnan(spectral_ranks(np.full(4, np.nan), tolerance=1e-6)["numerical_rank"])


float32_range = st.just(0.0) | st.floats(1e-45, 1e38)
positive = arrays(np.float64, st.integers(1, 40), elements=float32_range).filter(np.any)


@given(positive)
def test_ranks_are_exponentials_of_entropies_in_their_order(values):
    sigma = np.sort(values)[::-1]
    ranks = spectral_ranks(sigma, tolerance=1e-9)
    scaled = sigma / sigma[0]
    assert ranks["effective_rank"] == pytest.approx(np.exp(entropy(scaled)), rel=1e-9)
    assert ranks["effective_rank_energy"] == pytest.approx(np.exp(entropy(scaled**2)), rel=1e-9)
    assert ranks["participation_ratio"] == pytest.approx(
        np.sum(scaled**2) ** 2 / np.sum(scaled**4), rel=1e-9
    )
    assert ranks["stable_rank"] == pytest.approx(np.sum(scaled**2), rel=1e-9)
    order = [1, *(ranks[name] for name in RANKS), len(sigma)]
    assert np.all(np.diff(order) >= -1e-9 * len(sigma))


@pytest.mark.parametrize(
    ("shape", "published"), [((256, 1024), (116, 204, 226, 247)), ((256, 256), (67, 128, 156, 206))]
)
def test_gaussian_matrices_have_the_published_ranks(shape, published):
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(4))
    ranks = spectral_ranks(singular_values(weight), tolerance=1e-9)
    np.testing.assert_allclose([ranks[name] for name in RANKS], published, rtol=0.025)
    assert gaussian_effective_rank(*shape) == pytest.approx(published[-1], abs=1)


def test_gaussian_reference_is_fixed_and_blind_to_the_order_of_its_sides():
    first = gaussian_effective_rank(48, 96)
    gaussian_spectra.cache_clear()
    torch.manual_seed(99)
    assert gaussian_effective_rank(48, 96) == first
    assert gaussian_effective_rank(96, 48) == pytest.approx(first, rel=0.01)


def test_healthy_network_is_near_the_ratio_one():
    found = effective_rank(small())
    short = np.minimum(found.rows, found.columns)
    np.testing.assert_allclose(found.proportional_effective_rank * short, found.effective_rank)
    np.testing.assert_allclose(found.effective_rank_ratio, 1, atol=0.05)
    assert (found.numerical_rank == np.minimum(found.rows, found.columns)).all()


@pytest.mark.parametrize("role", ["query", "value", "feedforward_out"])
def test_planted_thin_matrix_is_seen_at_that_matrix_alone(role):
    healthy, planted = small(), small()
    (matrix,) = (m for m in planted.matrices() if (m.block, m.role) == (1, role))
    with torch.no_grad():
        left, sigma, right = torch.linalg.svd(matrix.weight, full_matrices=False)
        matrix.weight.copy_((left[:, :4] * sigma[:4]) @ right[:4])
    before, after = effective_rank(healthy), effective_rank(planted)
    here = ((after.block == 1) & (after.role == role)).values
    assert here.sum() == 1 and str(after.matrix.values[here][0]) == matrix.name
    assert after.numerical_rank.values[here] == 4
    assert after.effective_rank.values[here] <= 4
    assert after.effective_rank_ratio.values[here] < 0.2
    assert after.condition_number.values[here] > 1e6
    for name in after.data_vars:
        np.testing.assert_array_equal(after[name].values[~here], before[name].values[~here])


def test_spectrum_lies_in_its_gaussian_band_and_a_loud_row_is_found():
    network = small()
    (matrix,) = (m for m in network.matrices() if m.name == "block.1.query")
    with torch.no_grad():
        matrix.weight[17] *= 5
    found = effective_rank(network)
    key, loud = found.sel(matrix="block.2.key"), found.sel(matrix="block.1.query")
    size = int(np.isfinite(key.singular_value).sum())
    assert size == 24, "padded with NaN beyond the short side"
    within = (key.singular_value >= 0.9 * key.singular_value_low) & (
        key.singular_value <= 1.1 * key.singular_value_high
    )
    assert int(within.sum()) >= size - 1, "the smallest value alone may scatter"
    assert int(loud.row_peak_at) == 17 and 4 < float(loud.row_peak) < 6
    assert float(loud.column_peak) < 2 and float(key.row_peak) < 2
    entries = network.matrices()[0].weight.detach().double().numpy().ravel()
    assert float(found.kurtosis[0]) == pytest.approx(kurtosis(entries, fisher=False), rel=1e-4)


def test_ranks_do_not_depend_on_scale_or_basis():
    network, turned = small(), small()
    with torch.no_grad():
        for number, matrix in enumerate(turned.matrices()):
            turn = ortho_group.rvs(matrix.weight.shape[0], random_state=number)
            matrix.weight.copy_(0.001 * torch.from_numpy(turn).float() @ matrix.weight)
    found, again = effective_rank(network), effective_rank(turned)
    for name in (*RANKS, "numerical_rank", "effective_rank_ratio"):
        np.testing.assert_allclose(again[name], found[name], rtol=1e-4)


def test_layout_names_each_matrix_and_its_place():
    tied, untied = effective_rank(small()), effective_rank(small(tie_embeddings=False))
    assert set(untied.matrix.values) - set(tied.matrix.values) == {"head"}
    assert tied.sizes["matrix"] == 1 + 3 * 6
    assert {"block", "role", "rows", "columns"} <= set(tied.coords)
    key = tied.sel(matrix="block.2.key")
    assert (int(key.block), key.role.item(), int(key.rows), int(key.columns)) == (2, "key", 24, 48)
    assert int(tied.sel(matrix="embedding").block) == -1


def test_untrained_writes_are_zero_and_have_no_rank():
    found = effective_rank(new_network(small().config, seed=0))
    writes = np.isin(found.role, ["attention_out", "feedforward_out"])
    assert np.isnan(found.effective_rank_ratio.values[writes]).all()
    assert np.isnan(found.condition_number.values[writes]).all()
    assert (found.numerical_rank.values[writes] == 0).all()
    assert np.isfinite(found.effective_rank_ratio.values[~writes]).all()


def test_probing_leaves_the_weights_alone():
    network = small()
    before = copy.deepcopy(network.state_dict())
    effective_rank(network)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
