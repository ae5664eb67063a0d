"""Value residual: every form against a loop over recorded values."""

import math
from itertools import product

import pytest
import torch

from workbench.model import ValueResidualConfig, new_network, preset, record

FORMS = list(product(["add", "blend"], ["linear", "sigmoid"], ["first", "previous"]))
ALPHAS = (0.7, -0.4, 1.3)
N_LAYER = 4


def mixed(form, gate, source):
    mechanism = ValueResidualConfig(form=form, gate=gate, source=source)
    config = preset("demo", n_layer=N_LAYER, d_model=16, vocab_size=20, value_residual=mechanism)
    network = new_network(config, seed=0).eval()
    with torch.no_grad():
        network.value_residual.alpha.copy_(torch.tensor(ALPHAS))
    return network


@pytest.mark.parametrize(("form", "gate", "source"), FORMS)
def test_every_form_against_a_loop(form, gate, source):
    network = mixed(form, gate, source)
    names = [f"visit.{v}.{part}" for v in range(N_LAYER) for part in ("value_own", "value")]
    with torch.no_grad(), record(network, names) as seen:
        network(torch.arange(10).reshape(2, 5))
    past = [seen["visit.0.value_own"]]
    assert torch.equal(seen["visit.0.value"], past[0])
    for visit in range(1, N_LAYER):
        own, alpha = seen[f"visit.{visit}.value_own"], ALPHAS[visit - 1]
        a = 1 / (1 + math.exp(-alpha)) if gate == "sigmoid" else alpha
        earlier = past[0] if source == "first" else past[visit - 1]
        expected = torch.empty_like(own)
        for index in product(*map(range, own.shape)):
            kept = own[index] if form == "add" else own[index] - a * own[index]
            expected[index] = kept + a * earlier[index]
        torch.testing.assert_close(seen[f"visit.{visit}.value"], expected)
        past.append(expected)
        effective = float(network.value_residual.effective().detach()[visit - 1])
        assert effective == pytest.approx(a)


def test_a_replaced_value_is_what_later_visits_mix_in():
    network = mixed("add", "linear", "first")
    sites = ["visit.2.value", "visit.2.value_own"]
    with (
        torch.no_grad(),
        record(network, sites, replace={"visit.0.value": torch.ones_like}) as seen,
    ):
        network(torch.arange(5)[None])
    torch.testing.assert_close(seen["visit.2.value"], seen["visit.2.value_own"] + ALPHAS[1])


def test_a_silent_mechanism_is_no_mechanism():
    network = mixed("add", "linear", "first")
    with torch.no_grad():
        network.value_residual.alpha.zero_()
    plain = new_network(
        preset("demo", n_layer=N_LAYER, d_model=16, vocab_size=20, value_residual=None), seed=0
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.normal_(0, 0.3, generator=generator)
            network.get_parameter(name).copy_(parameter)
        ids = torch.arange(10)[None]
        assert torch.equal(network(ids), plain(ids))
        network.value_residual.alpha.fill_(0.5)
        assert not torch.allclose(network(ids), plain(ids))


@pytest.mark.parametrize("n_layer", [1, 2, 5])
def test_one_alpha_for_every_visit_after_the_first(n_layer):
    network = new_network(
        preset("demo", n_layer=n_layer, d_model=16, value_residual={"init": -0.25}), seed=0
    )
    assert network.value_residual.alpha.tolist() == [-0.25] * (n_layer - 1)
    network(torch.arange(4)[None])


def test_unknown_choices_are_refused():
    for field in ("form", "gate", "source"):
        with pytest.raises(ValueError, match=f"{field} must be one of"):
            ValueResidualConfig(**{field: "other"})
