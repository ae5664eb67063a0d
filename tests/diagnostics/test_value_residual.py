import copy
from itertools import product

import numpy as np
import pytest
import torch
from planted_values import LENGTH, N_LAYER, ROWS, batch, mean_loss, network, with_alpha

from workbench.diagnostics import as_rows, value_residual
from workbench.model import new_network, preset, record
from workbench.text import IGNORED
from workbench.training import next_token_loss

FORMS = list(product(("add", "blend"), ("first", "previous"), ("linear", "sigmoid")))
PER_VISIT = ("contribution", "contribution_share", "cosine", "gradient_share", "ablation_cost")


def measure(model, *, step=7):
    return value_residual({step: model}, as_rows(*batch())).isel(step=-1)


@pytest.mark.parametrize(("form", "source", "gate"), FORMS)
def test_parts_agree_with_a_loop_over_recorded_values(form, source, gate):
    model = network(form=form, source=source, gate=gate)
    found = measure(model)
    names = [f"visit.{v}.{site}" for v in range(N_LAYER) for site in ("value_own", "value")]
    with torch.no_grad(), record(model, names) as seen:
        model(batch()[0])
    values = {name: tensor.numpy().astype(float) for name, tensor in seen.items()}
    for visit in range(1, N_LAYER):
        raw = float(model.value_residual.alpha.detach()[visit - 1])
        mix = 1 / (1 + np.exp(-raw)) if gate == "sigmoid" else raw
        own, mixed = values[f"visit.{visit}.value_own"], values[f"visit.{visit}.value"]
        earlier = values[f"visit.{0 if source == 'first' else visit - 1}.value"]
        kept = (1 - mix) if form == "blend" else 1.0
        np.testing.assert_allclose(mixed, mix * earlier + kept * own, atol=1e-6)
        dot = square = norm_added = norm_own = cosine = 0.0
        for place in np.ndindex(own.shape[:-1]):
            a, b = mix * earlier[place], kept * own[place]
            dot += a @ (a + b)
            square += (a + b) @ (a + b)
            norm_added += np.sqrt(a @ a)
            norm_own += np.sqrt(b @ b)
            cosine += (earlier[place] @ own[place]) / np.sqrt(
                (earlier[place] @ earlier[place]) * (own[place] @ own[place])
            )
        here = found.sel(visit=visit)
        assert float(here.alpha) == pytest.approx(raw)
        assert float(here.alpha_effective) == pytest.approx(mix)
        assert float(here.contribution) == pytest.approx(dot / square, rel=1e-5)
        share = norm_added / (norm_added + norm_own)
        assert float(here.contribution_share) == pytest.approx(share, rel=1e-5)
        assert float(here.cosine) == pytest.approx(cosine / np.prod(own.shape[:-1]), abs=1e-6)


@pytest.mark.parametrize(("form", "source", "gate"), FORMS)
def test_ablation_is_the_model_with_that_alpha_at_zero(form, source, gate):
    model = network(form=form, source=source, gate=gate)
    found = measure(model)
    off = -1e4 if gate == "sigmoid" else 0.0  # the mix is then exactly 0
    costs = [
        mean_loss(with_alpha(model, visit, off)) - mean_loss(model) for visit in range(1, N_LAYER)
    ]
    np.testing.assert_allclose(found.ablation_cost[1:], costs, atol=2e-6)
    assert np.abs(costs).min() > 1e-4  # else the comparison says nothing


def test_ablation_error_is_that_of_a_mean_over_rows():
    model, (inputs, targets) = network(), batch()
    cut = with_alpha(model, 1, 0.0)
    costs = []
    with torch.no_grad():
        for row in range(ROWS):
            pair = [
                next_token_loss(each, inputs[row : row + 1], targets[row : row + 1]) / (LENGTH - 2)
                for each in (cut, model)
            ]
            costs.append(float(pair[0] - pair[1]))
    found = measure(model).sel(visit=1)
    expected = np.std(costs, ddof=1) / np.sqrt(ROWS)
    assert float(found.ablation_standard_error) == pytest.approx(expected, rel=1e-3)


def test_one_row_has_no_standard_error():
    inputs, targets = batch()
    found = value_residual({0: network()}, as_rows(inputs[:1], targets[:1])).isel(step=0)
    assert np.isfinite(found.ablation_cost[1:]).all()
    assert np.isnan(found.ablation_standard_error).all()


@pytest.mark.parametrize(("form", "source", "gate"), FORMS)
def test_gradient_share_agrees_with_finite_differences(form, source, gate):
    model = network(form=form, source=source, gate=gate).double()
    found = measure(model).gradient_share.values[1:]
    alpha, width = model.value_residual.alpha.detach(), 1e-3
    slopes = [
        mean_loss(with_alpha(model, visit, float(alpha[visit - 1]) + width))
        - mean_loss(with_alpha(model, visit, float(alpha[visit - 1]) - width))
        for visit in range(1, N_LAYER)
    ]
    np.testing.assert_allclose(found, np.abs(slopes) / np.abs(slopes).sum(), rtol=0.01, atol=1e-3)
    assert found.sum() == pytest.approx(1)


def test_planted_dead_and_bypass_stand_apart_from_the_healthy_visit():
    planted = network(alpha=(0.0, 0.5, 0.5))
    with torch.no_grad():
        planted.blocks[2].attn.c_v.weight.zero_()
    found = measure(planted)
    dead, bypass, healthy = (found.sel(visit=visit) for visit in (1, 2, 3))
    for name in ("contribution", "contribution_share", "ablation_cost"):
        assert float(dead[name]) == 0
    assert float(bypass.contribution_share) == pytest.approx(1)
    assert float(bypass.contribution) == pytest.approx(1)
    assert np.isnan(bypass.cosine)  # a value of zeros has no direction
    assert 0.1 < float(healthy.contribution_share) < 0.9
    assert float(healthy.ablation_cost) != 0


def test_planted_subtraction_shows_in_the_projection_alone():
    same, against = network(alpha=(0.5,), n_layer=2), network(alpha=(0.5,), n_layer=2)
    # Without an attention write the second block sees what the first saw, so its value can be set.
    with torch.no_grad():
        for model, sign in ((same, 1), (against, -1)):
            model.blocks[0].attn.proj.weight.zero_()
            model.blocks[0].mlp.proj.weight.zero_()
            model.skip_weights.zero_()
            model.blocks[1].attn.c_v.weight.copy_(sign * model.blocks[0].attn.c_v.weight)
    with_it, opposed = measure(same).sel(visit=1), measure(against).sel(visit=1)
    assert float(with_it.cosine) == pytest.approx(1, abs=1e-6)
    assert float(opposed.cosine) == pytest.approx(-1, abs=1e-6)
    # own +- source / 2: the norms stand 2 to 1 in both, the sum is 3/2 or 1/2 of the own value.
    assert float(opposed.contribution_share) == pytest.approx(1 / 3, rel=1e-5)
    assert float(with_it.contribution_share) == pytest.approx(1 / 3, rel=1e-5)
    assert float(with_it.contribution) == pytest.approx(1 / 3, rel=1e-5)
    assert float(opposed.contribution) == pytest.approx(-1, rel=1e-5)


def test_planted_cancellation_leaves_nothing_to_project_on():
    model = network(alpha=(1.0,), n_layer=2)
    with torch.no_grad():
        model.blocks[0].attn.proj.weight.zero_()
        model.blocks[0].mlp.proj.weight.zero_()
        model.skip_weights.zero_()
        model.blocks[1].attn.c_v.weight.copy_(-model.blocks[0].attn.c_v.weight)
    found = measure(model).sel(visit=1)
    assert float(found.contribution_share) == pytest.approx(0.5, rel=1e-5)
    assert not abs(float(found.contribution)) < 10  # NaN, or the ratio to a rounding error


def test_first_visit_and_earlier_steps_are_not_measured():
    models = {20: network(), 0: network(alpha=(0.5, 0.5, 0.5)), 10: network(alpha=(0.4, 0.1, 0.6))}
    found = value_residual(models, as_rows(*batch()))
    assert found.step.values.tolist() == [0, 10, 20]
    np.testing.assert_allclose(found.alpha.sel(step=10)[1:], [0.4, 0.1, 0.6])
    for name in (*PER_VISIT, "alpha", "alpha_effective"):
        assert np.isnan(found[name].sel(visit=0)).all()
    for name in ("ablation_cost", "ablation_standard_error"):
        assert np.isnan(found[name].sel(step=[0, 10])).all()
        assert np.isfinite(found[name].sel(step=20)[1:]).all()


def test_untrained_network_has_no_gradient_to_share():
    model = network()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.proj.weight.zero_()
    assert np.isnan(measure(model).gradient_share).all()


def test_model_without_value_residual_is_refused():
    config = preset("baseline", n_layer=2, n_head=2, n_kv_head=1, d_model=32, vocab_size=64)
    with pytest.raises(ValueError, match="no value residual"):
        value_residual({0: new_network(config, seed=0)}, as_rows(*batch()))


def test_probing_leaves_the_model_as_it_was():
    model = network()
    model.value_residual.alpha.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    first, second = measure(model), measure(model)
    assert first.identical(second)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.value_residual.alpha.requires_grad


def test_padding_is_not_measured():
    """Rows of two lengths, padded, measure as the same rows one by one without padding do."""
    model, (inputs, targets) = network(), batch()
    present = torch.ones_like(inputs, dtype=torch.bool)
    present[1, 7:] = False
    padded, scored = inputs.where(present, 0), targets.where(present, IGNORED)
    found = value_residual({7: model}, as_rows(padded, scored, present=present)).isel(step=0)
    junk = inputs.where(present, 33)
    again = value_residual({7: model}, as_rows(junk, scored, present=present)).isel(step=0)
    for name in PER_VISIT:
        np.testing.assert_allclose(found[name], again[name], rtol=1e-6)
    counted = value_residual({7: model}, as_rows(padded, scored)).isel(step=0)
    assert not np.allclose(found.cosine.values[1:], counted.cosine.values[1:], rtol=1e-3)


def test_rows_of_one_group_are_one_observation():
    """Each row twice: no new information, so no smaller error, once the copies are one group."""
    model, (inputs, targets) = network(), batch()
    once = value_residual({7: model}, as_rows(inputs, targets)).isel(step=0)
    twice = torch.cat([inputs, inputs]), torch.cat([targets, targets])
    group = np.repeat(np.arange(ROWS)[:, None], LENGTH, axis=1)
    grouped = value_residual(
        {7: model}, as_rows(*twice, group=np.concatenate([group, group]))
    ).isel(step=0)
    naive = value_residual({7: model}, as_rows(*twice)).isel(step=0)
    name = "ablation_standard_error"
    np.testing.assert_allclose(grouped[name].values[1:], once[name].values[1:], rtol=1e-5)
    assert (naive[name].values[1:] < 0.8 * once[name].values[1:]).all()


def cancelling():
    """Two visits: the second's own value takes back what is mixed in and adds a part across it.

    The first value lies in channels 0-7 of the head, the part across in 8-15.
    """
    model = network(alpha=(0.5,), n_layer=2)
    with torch.no_grad():
        model.blocks[0].attn.proj.weight.zero_()
        model.blocks[0].mlp.proj.weight.zero_()
        model.skip_weights.zero_()
        first, second = (block.attn.c_v.weight for block in model.blocks)
        across = second.clone()
        first[8:], across[:8] = 0, 0
        second.copy_(across - 0.5 * first)
    return model


def test_planted_cancellation_has_a_high_share_and_no_projection():
    found = value_residual({0: cancelling()}, as_rows(*batch(rows=40))).isel(step=0).sel(visit=1)
    assert float(found.contribution_share) > 0.3
    assert abs(float(found.contribution)) < 1e-6
    assert abs(float(found.zero_cost)) > 2 * float(found.zero_cost_standard_error)
    assert np.isnan(found.death), "what is needed is not dead"


@pytest.mark.parametrize(("form", "source", "gate"), FORMS)
def test_other_ablations_are_those_of_values_put_by_hand(form, source, gate):
    model = network(form=form, source=source, gate=gate)
    found, base = measure(model), mean_loss(model)
    inputs, _ = batch()
    for visit in range(1, N_LAYER):
        at = f"visit.{visit}.value"
        with torch.no_grad(), record(model, [at, f"{at}_own"]) as seen:
            model(inputs)
        own, mixed = seen[f"{at}_own"], seen[at]
        mean = torch.zeros_like(own[:1, :, :1])
        for row, position in np.ndindex(ROWS, LENGTH):
            mean[0, :, 0] += (mixed - own)[row, :, position] / (ROWS * LENGTH)
        mix = float(found.alpha_effective.sel(visit=visit))
        kept = (1 - mix) * own if form == "blend" else own
        for name, value in (("mean", own + mean), ("own", mixed - kept)):
            with torch.no_grad(), record(model, replace={at: lambda _, value=value: value}):
                cost = (mean_loss(model) - base) / np.log(2)
            assert float(found[f"{name}_cost"].sel(visit=visit)) == pytest.approx(cost, abs=3e-6)
    resets = [
        (mean_loss(with_alpha(model, visit, 0.5)) - base) / np.log(2) for visit in range(1, N_LAYER)
    ]
    np.testing.assert_allclose(found.reset_cost[1:], resets, atol=3e-6)
    nats = found.zero_cost * np.log(2)
    np.testing.assert_allclose(found.ablation_cost, nats, err_msg="a byte a target")


def test_a_dead_alpha_dies_at_its_step_and_its_twin_lives():
    dead, alive = (0.0, 0.5, 0.5), (0.3, 0.5, 0.5)
    courses = {
        "early": (alive, dead, dead),
        "back": (dead, alive, dead),
        "never": (dead, dead, alive),
    }
    for name, alphas in courses.items():
        models = {10 * at: network(alpha=alpha) for at, alpha in enumerate(alphas)}
        found = value_residual(models, as_rows(*batch()))
        expected = {"early": 10, "back": 20, "never": np.nan}[name]
        np.testing.assert_equal(float(found.death.sel(visit=1)), expected)
        assert np.isnan(found.death.sel(visit=[0, 2, 3])).all()
    assert found.groups == ROWS and found.decision.sel(visit=0).item() == ""


def test_decisions_of_planted_dead_bypassed_and_needed_visits():
    model = network(alpha=(0.0, 0.7, 0.7))
    with torch.no_grad():
        model.blocks[2].attn.c_v.weight.zero_()
    found = value_residual({0: model}, as_rows(*batch(rows=12)))
    assert found.decision.values[1:3].tolist() == ["remove", "identity"]
    assert found.decision.values[3] in ("keep", "unjudged")
    few = value_residual({0: model}, as_rows(*batch()))
    assert few.decision.values[1:].tolist() == ["unjudged"] * 3, "three groups of text"
