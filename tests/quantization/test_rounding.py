"""GPTQ against what it approximates, and steps chosen by curvature."""

import itertools

import numpy as np
import pytest
import torch

from workbench.quantization.byte_codec import entropy_bytes
from workbench.quantization.curvature import Curvature
from workbench.quantization.grid import Grid, integer_grid, nearest
from workbench.quantization.rounding import awq_grid, dead_zone, even_slope_grid, factor, gptq


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(n, width, *, seed=1):
    """Correlated inputs of a few strong directions."""
    mix = gaussian(width, width, seed=seed) * torch.logspace(0, -1.5, width)[:, None]
    return (gaussian(n, width, seed=seed + 1) @ mix).double()


def error(weight, values, bend):
    gap = (values - weight).double()
    return float(((gap @ bend) * gap).sum())


def test_without_correlation_it_is_plain_rounding():
    weight = gaussian(6, 12)
    grid = integer_grid(weight, bits=4)
    for bend in (torch.eye(12).double(), torch.diag(torch.linspace(1, 30, 12).double())):
        assert torch.equal(gptq(weight, grid, factor(bend)).codes, nearest(weight, grid).codes)


def test_it_equals_optimal_brain_quantisation_in_fixed_order():
    """By the slow route: invert what is left of the curvature anew for every column."""
    weight, x = gaussian(4, 7), inputs(300, 7)
    bend = x.T @ x / 300
    damped = bend + 0.01 * bend.diagonal().mean() * torch.eye(7)
    grid = integer_grid(weight, bits=3)
    left, expected = weight.double().clone(), torch.zeros(4, 7)
    for at in range(7):
        inverse = torch.linalg.inv(damped[at:, at:])
        step = grid.row_scale[:, 0].double()
        code = (left[:, at] / step).round().clamp(-3, 3)
        expected[:, at] = code
        gap = left[:, at] - code * step
        left[:, at:] -= gap[:, None] / inverse[0, 0] * inverse[0]
    assert torch.equal(gptq(weight, grid, factor(bend)).codes.float(), expected)


def test_it_is_near_the_best_of_all_on_a_toy():
    weight, x = gaussian(1, 5, seed=4), inputs(200, 5)
    bend = x.T @ x / 200
    grid = integer_grid(weight, bits=2)
    every = [
        error(weight, torch.tensor([codes]) * grid.row_scale, bend)
        for codes in itertools.product((-1.0, 0.0, 1.0), repeat=5)
    ]
    found = error(weight, gptq(weight, grid, factor(bend)).values(), bend)
    plain = error(weight, nearest(weight, grid).values(), bend)
    assert min(every) <= found <= plain


def test_output_error_falls_where_weight_error_rises():
    weight, x = gaussian(64, 48), inputs(4000, 48)
    bend = x.T @ x / 4000
    grid = integer_grid(weight, bits=4)
    fast, plain = gptq(weight, grid, factor(bend)).values(), nearest(weight, grid).values()
    assert error(weight, fast, bend) < 0.6 * error(weight, plain, bend)
    assert (fast - weight).square().sum() > (plain - weight).square().sum()
    assert torch.equal(fast, gptq(weight, grid, factor(7.0 * bend)).values())


def test_dead_inputs_do_not_spoil_the_others():
    x = inputs(500, 8)
    bend = x.T @ x / 500
    padded = torch.zeros(10, 10).double()
    padded[:8, :8] = bend
    weight = gaussian(5, 10)
    grid = integer_grid(weight, bits=4)
    factors = factor(padded)
    found = gptq(weight, grid, factors)
    assert factors.dead.tolist() == [False] * 8 + [True] * 2 and (found.codes[:, 8:] == 0).all()
    alone = gptq(weight[:, :8], Grid(row_scale=grid.row_scale, limit=7), factor(bend))
    assert torch.equal(found.codes[:, :8], alone.codes)
    broken = bend.clone()
    broken[0, 1] = broken[1, 0] = 5 * bend.diagonal().max()
    with pytest.raises(ValueError, match="not positive definite"):
        factor(broken)


def test_headroom_is_that_of_the_conditional_variances():
    x = inputs(3000, 6)
    bend = x.T @ x / 3000
    found = factor(bend, damping=1e-9)
    # What an input has of its own, given those after it: a regression for each column.
    own = []
    for at in range(6):
        rest = x[:, at + 1 :].numpy()
        fitted = rest @ np.linalg.lstsq(rest, x[:, at].numpy(), rcond=None)[0] if at < 5 else 0
        own.append(np.square(x[:, at].numpy() - fitted).mean())
    np.testing.assert_allclose(found.upper.diagonal() ** -2, own, rtol=1e-5)
    expected = 10 * np.log10(np.mean(own) / np.exp(np.mean(np.log(own))))
    assert found.headroom == pytest.approx(expected, rel=1e-5)


def test_even_slopes_cost_the_same_at_every_weight():
    x = inputs(4000, 32)
    output = torch.logspace(-3, 1, 96).double()
    bend = Curvature(input=x.T @ x / 4000, output=output, tokens=4000)
    factors = factor(bend.input, damping=1e-9)
    weight = 5 * gaussian(96, 32)
    step = 0.002
    grid = even_slope_grid(bend, factors, step=step)
    found = gptq(weight, grid, factors)
    # At fine steps the loss is that of rounding noise: a 24th of the squared step a weight.
    expected = step**2 / 24 * weight.numel()
    assert bend.cost(found.values() - weight) == pytest.approx(expected, rel=0.15)
    # One step for all weights, of the same mean code length, costs more.
    mean = grid.steps(32).log().mean().exp()
    same = gptq(weight, Grid(row_scale=mean.expand(96, 1)), factors)
    assert bend.cost(same.values() - weight) > 2 * bend.cost(found.values() - weight)


def test_awq_without_power_is_plain_and_with_it_helps_loud_inputs():
    weight, x = gaussian(64, 32), gaussian(2000, 32).double()
    x[:, :3] *= 20
    bend = x.T @ x / 2000
    loud = x.abs().mean(dim=0)
    plain = nearest(weight, integer_grid(weight, bits=4))
    assert torch.equal(nearest(weight, awq_grid(weight, loud, bits=4, power=0)).codes, plain.codes)
    scaled = nearest(weight, awq_grid(weight, loud, bits=4, power=0.5))
    assert error(weight, scaled.values(), bend) < 0.5 * error(weight, plain.values(), bend)


def test_the_order_of_rounding_is_a_permutation():
    """Loudest first is what rounding permuted columns in their order gives, put back."""
    weight, x = gaussian(16, 12), inputs(800, 12)
    bend = x.T @ x / 800
    grid = integer_grid(weight, bits=3)
    order = bend.diagonal().argsort(descending=True)
    permuted = gptq(weight[:, order], grid, factor(bend[order][:, order]))
    found = gptq(weight, grid, factor(bend, loudest_first=True))
    assert torch.equal(found.codes[:, order], permuted.codes)
    plain, loud = factor(bend, damping=1e-9), factor(bend, damping=1e-9, loudest_first=True)
    for each in (plain, loud):  # the same determinant, however it is cut
        total = float(each.own.log().sum())
        assert total == pytest.approx(-0.5 * float(torch.logdet(bend)), rel=1e-4)


@pytest.mark.parametrize(("step", "published"), [(0.8, (0.283, 0.257)), (1.2, (0.312, 0.257))])
def test_a_wider_zero_with_its_values_comes_nearer_to_the_limit(step, published):
    """Of independent normal weights: bits over ``log2(1 / error) / 2``, as published within 0.03.

    The published steps are those of 2.6 and 2.1 bits a weight.
    """
    weight = gaussian(600, 400, seed=3)
    grid = Grid(row_scale=torch.full((600, 1), step))
    factors = factor(torch.eye(400).double())

    def gap(codes):
        bits = 8 * entropy_bytes(codes) / weight.numel()
        error = float((codes.values() - weight).square().mean() / weight.square().mean())
        return bits - 0.5 * np.log2(1 / error)

    plain, wide = gap(nearest(weight, grid)), gap(dead_zone(weight, grid, factors, width=0.05))
    assert wide < plain - 0.01
    assert (plain, wide) == pytest.approx(published, abs=0.04)
