"""The curve against a fine grid of edited models; its verdicts on planted alphas."""

import copy

import numpy as np
import pytest
import torch
from planted_values import batch, network, with_alpha

from workbench.diagnostics import Trial, alpha_curve, as_rows, mix_cost

VISIT, TRUE = 2, 0.8


@pytest.fixture(scope="module")
def taught():
    """A network, and rows whose targets it drew itself: its own alphas are near the best."""
    model = network(alpha=(0.3, TRUE, 0.7))
    inputs, _ = batch(rows=60)
    with torch.no_grad():
        chances = model(inputs).softmax(dim=-1)
    generator = torch.Generator().manual_seed(4)
    targets = chances.flatten(0, 1).multinomial(1, generator=generator).view(inputs.shape)
    return model, as_rows(inputs, targets)


def curve(model, rows):
    return alpha_curve(Trial(model=model, rows=rows), VISIT)


def grid_of(model, rows, mixes):
    """Bits a target with the alpha of the visit set by hand to each mix."""
    changed = (with_alpha(model, VISIT, float(mix)) for mix in mixes)
    return np.array([rows.losses(each).mean() / np.log(2) for each in changed])


def test_costs_are_those_of_edited_models_and_the_learned_mix_is_free(taught):
    found = curve(*taught)
    assert {0.0, 0.5} <= set(found.setting.values) and 7 <= found.sizes["setting"] <= 9
    assert found.attrs["learned"] == pytest.approx(TRUE)
    costs = grid_of(*taught, found.setting.values) - grid_of(*taught, [TRUE])
    np.testing.assert_allclose(found.cost, costs, atol=2e-6)
    learned = found.sel(setting=found.attrs["learned"])
    assert (float(learned.cost), float(learned.cost_standard_error)) == (0, 0)


def test_minimum_and_curvature_are_those_of_a_fine_grid(taught):
    model, rows = taught
    moved = with_alpha(model, VISIT, 1.1)
    found = curve(moved, rows)
    grid = np.linspace(0.2, 2.0, 91)
    best = grid[np.argmin(grid_of(model, rows, grid))]
    assert 0.4 < best < 1.6, "else the grid says nothing"
    assert float(found.minimum) == pytest.approx(best, abs=0.04)
    step, mix = 0.05, 1.1
    low, mid, high = grid_of(copy.deepcopy(model).double(), rows, [mix - step, mix, mix + step])
    assert float(found.curvature) == pytest.approx((low - 2 * mid + high) / step**2, rel=0.15)


def test_error_of_the_curvature_is_that_of_a_mean_over_rows(taught):
    model, rows = taught
    few = as_rows(rows.inputs[:8], rows.targets[:8])
    each = [as_rows(rows.inputs[[row]], rows.targets[[row]]) for row in range(8)]
    bends = [float(curve(model, one).curvature) for one in each]
    whole = curve(model, few)
    assert float(whole.curvature) == pytest.approx(np.mean(bends), rel=1e-3)
    expected = np.std(bends, ddof=1) / np.sqrt(8)
    assert float(whole.curvature_standard_error) == pytest.approx(expected, rel=1e-3)


def test_verdicts_of_planted_alphas(taught):
    model, rows = taught
    free = copy.deepcopy(model)
    with torch.no_grad():
        free.blocks[VISIT].attn.proj.weight.zero_()  # nothing that is attended to is written
    flat = curve(free, rows)
    assert flat.verdict == "flat"
    assert (flat.cost == 0).all() and (flat.cost_standard_error == 0).all()
    assert curve(model, rows).verdict == "needed"
    wrong = curve(with_alpha(model, VISIT, 3.0), rows)
    assert wrong.verdict == "elsewhere" and abs(float(wrong.minimum) - TRUE) < 0.6
    few = as_rows(rows.inputs[:4], rows.targets[:4])
    assert curve(model, few).verdict == "unjudged", "four groups of text"


def test_a_gate_confines_the_mixes(taught):
    _, rows = taught
    model = network(alpha=(0.3, 3.0, 0.7), gate="sigmoid", form="blend")
    found = curve(model, rows)
    assert found.setting.min() == 0 and found.setting.max() == 1
    assert np.isfinite(found.cost).all()
    expected = (rows.losses(with_alpha(model, VISIT, -1e4)) - rows.losses(model)).mean() / np.log(2)
    assert float(found.cost.sel(setting=0)) == pytest.approx(expected, abs=2e-6)


def test_one_mix_that_is_asked_for(taught):
    model, rows = taught
    found = mix_cost(Trial(model=model, rows=rows), visit=VISIT, mix=-1.25)
    low, learned = grid_of(model, rows, [-1.25, TRUE])
    assert float(found.asked_cost) == pytest.approx(low - learned, abs=2e-6)
    assert found.attrs["asked"] == -1.25 and float(found.asked_cost_standard_error) > 0
