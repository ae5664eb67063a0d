"""What-if of the head against models edited by hand."""

import copy

import numpy as np
import pytest
import torch

from workbench.diagnostics import as_rows, damping, final_states
from workbench.model import new_network, preset, record
from workbench.result import check


@pytest.fixture
def network():
    """Two blocks with an output bias, every weight random."""
    config = preset("demo", n_layer=2, d_model=16, vocab_size=257, output_bias=True)
    model = new_network(config, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model.eval()


@pytest.fixture
def rows():
    """Six rows whose first targets are not scored."""
    ids = torch.randint(0, 257, (6, 13), generator=torch.Generator().manual_seed(3))
    targets = ids[:, 1:].clone()
    targets[:, :2] = -100
    return as_rows(ids[:, :-1], targets)


def rated(model, rows, mu, settings):
    hidden = final_states(model, rows)
    return damping(model, rows, mu=mu, hidden=hidden, settings=settings)


def winners(model, rows):
    with torch.no_grad():
        return model(rows.inputs)[rows.targets >= 0].argmax(dim=-1)


def test_keeping_less_bias_is_editing_the_bias(network, rows):
    found = check(rated(network, rows, np.ones(16), [(1.0, 1.0), (1.0, 0.25), (1.0, 0.0)]))
    base, own = rows.losses(network), winners(network, rows)
    assert found.attrs["bits_per_byte"] == pytest.approx(base.mean() / np.log(2), rel=1e-5)
    assert found.change[0] == 0 and found.flips[0] == 0
    for at, kept in ((1, 0.25), (2, 0.0)):
        edited = copy.deepcopy(network)
        with torch.no_grad():
            edited.lm_bias.mul_(kept)
        cost = (rows.losses(edited) - base) / np.log(2)
        assert float(found.change[at]) == pytest.approx(cost.mean(), rel=1e-4)
        flips = int((winners(edited, rows) != own).sum())
        assert int(found.flips[at]) == flips > 0
        by_row = cost.reshape(6, 10).mean(axis=1)  # rows are groups of one size
        error = by_row.std(ddof=1) / np.sqrt(6)
        assert float(found.change_standard_error[at]) == pytest.approx(error, rel=1e-4)
    np.testing.assert_allclose(found.change_by_class.sum("token_class"), found.change, atol=1e-12)


def test_keeping_less_prior_is_subtracting_the_mean_at_the_final_norm(network, rows):
    mu = np.random.default_rng(0).normal(size=16)
    found = rated(network, rows, mu, [(0.4, 1.0)])
    edit = {"final_norm": lambda hidden: hidden - 0.6 * torch.from_numpy(mu).float()}
    base, own = rows.losses(network), winners(network, rows)
    with record(network, replace=edit):
        cost = (rows.losses(network) - base) / np.log(2)
        flips = int((winners(network, rows) != own).sum())
    assert float(found.change[0]) == pytest.approx(cost.mean(), rel=1e-4)
    assert int(found.flips[0]) == flips


def test_the_logits_held_at_a_time_change_nothing(network, rows, monkeypatch):
    settings = [(0.5, 0.5)]
    whole = rated(network, rows, np.ones(16), settings)
    module = __import__("importlib").import_module("workbench.diagnostics.damping")
    monkeypatch.setattr(module, "LOGITS", 257 * 7)
    np.testing.assert_allclose(
        rated(network, rows, np.ones(16), settings).change, whole.change, atol=1e-6
    )


def test_a_model_without_bias_ignores_its_slider(rows):
    model = new_network(preset("demo", n_layer=1, d_model=16, vocab_size=257), seed=0)
    assert rated(model, rows, np.ones(16), [(1.0, 0.0)]).change.item() == 0
