"""Grids and the nearest of their values."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize_scalar

from workbench.folder import InputError
from workbench.quantization.grid import (
    Grid,
    clip_search,
    integer_grid,
    level_of,
    nearest,
    power_scale,
    scale_of,
    ternary,
)

FINITE = st.floats(-100, 100, width=32)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, (3, 8), elements=FINITE), st.integers(2, 8), st.sampled_from([2, 4, 8]))
def test_rounding_is_idempotent_and_within_half_a_step(values, bits, group):
    weight = torch.from_numpy(values)
    grid = integer_grid(weight, bits=bits, group=group)
    found = nearest(weight, grid)
    again = nearest(found.values(), grid)
    assert torch.equal(again.codes, found.codes) and torch.equal(again.values(), found.values())
    assert found.codes.abs().max() <= 2 ** (bits - 1) - 1
    steps = grid.steps(8)
    # A scale is rounded to 11 bits, so the largest weight may lie a little beyond the last code.
    slack = 2**-10 * (2 ** (bits - 1)) + 0.5
    assert bool(((found.values() - weight).abs() <= slack * steps + 1e-7).all())


def test_a_value_is_the_nearest_of_all_on_the_grid():
    weight = gaussian(4, 16)
    grid = integer_grid(weight, bits=4, group=8)
    found = nearest(weight, grid).values()
    for row in range(4):
        for column in range(16):
            every = grid.row_scale[row, column // 8] * torch.arange(-7, 8)
            best = (every - weight[row, column]).abs().min()
            assert (found[row, column] - weight[row, column]).abs() == pytest.approx(float(best))


def test_scales_survive_storage_and_rows_of_zeros():
    weight = gaussian(4, 8) * torch.tensor([1.0, 1e-9, 0.0, 1e9])[:, None]
    grid = integer_grid(weight, bits=6)
    assert torch.equal(grid.row_scale.half().float(), grid.row_scale)
    assert bool((grid.row_scale[[0, 1, 3]] > 0).all()) and grid.row_scale[2] == 0
    assert torch.isfinite(nearest(weight, grid).values()).all()
    assert (nearest(weight, grid).values()[2] == 0).all()


def test_clip_search_finds_what_an_optimizer_finds():
    weight = gaussian(3, 4096)
    found = clip_search(weight, bits=4)
    for row in range(3):

        def error(clip, row=row):
            grid = integer_grid(weight[row : row + 1], bits=4, clip=float(clip))
            return float(
                (nearest(weight[row : row + 1], grid).values() - weight[row]).square().sum()
            )

        best = minimize_scalar(error, bounds=(0.3, 1), method="bounded")
        mine = Grid(row_scale=found.row_scale[row : row + 1], limit=7)
        reached = (nearest(weight[row : row + 1], mine).values() - weight[row]).square().sum()
        assert float(reached) <= best.fun * 1.01
    # Of a Gaussian the best clip of 4 bits lies near 2.6 deviations.
    assert float(found.row_scale.mean() * 7) == pytest.approx(2.6, abs=0.15)


def test_deviations_set_the_last_code():
    weight = gaussian(2, 4096)
    grid = integer_grid(weight, bits=6, deviations=12.85)
    np.testing.assert_allclose(grid.row_scale * 31, 12.85, rtol=0.03)
    codes = nearest(weight, grid).codes
    share = torch.bincount(codes.flatten() + 31) / codes.numel()
    entropy = -(share[share > 0] * share[share > 0].log2()).sum()
    assert float(entropy) == pytest.approx(3.328, abs=0.01)  # published for a Gaussian
    assert nearest(weight, grid).saturated == 0


def test_ternary_scale_is_the_least_squares_one():
    weight = gaussian(5, 400)
    found = ternary(weight)
    for row in range(5):
        q = found.codes[row].double().numpy()
        best = np.linalg.lstsq(q[:, None], weight[row].double().numpy(), rcond=None)[0][0]
        assert float(found.grid.row_scale[row, 0]) == pytest.approx(best, rel=1e-3)
    energy, lost = weight.square().sum(), (found.values() - weight).square().sum()
    assert 6.3 < float(10 * torch.log10(energy / lost)) < 7.1  # about 6.7 dB of a Gaussian


@given(st.integers(-80, 80))
def test_levels_and_scales_are_each_others_inverse(level):
    scale = scale_of(torch.tensor([level]))
    assert int(level_of(scale)) == level
    assert float(scale) == pytest.approx(2 ** (level / 4), rel=1e-6)
    assert torch.equal(power_scale(scale * 1.05), scale)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="groups that divide 10 columns"):
        integer_grid(gaussian(2, 10), bits=4, group=4)
    with pytest.raises(InputError, match="2 to 8 bits"):
        integer_grid(gaussian(2, 8), bits=1)
    with pytest.raises(InputError, match="finite"):
        integer_grid(torch.tensor([[1.0, float("nan")]]), bits=4)
