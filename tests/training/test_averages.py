"""Averages against a plain loop, against torch's own, and resumed."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from workbench.folder import InputError
from workbench.model import load_state
from workbench.training.averages import Average, AverageConfig

# A warmup that begins low, full rate, and a warmdown.
MULTIPLIERS = [0.1, 0.3, 0.6, *[1.0] * 9, 0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]


def moved(model, generator):
    """Move every weight, as an update would."""
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter.dtype), alpha=0.1)


def trained(model, average, *, watch=lambda step, model: None):
    """Show `average` the states of a model that wanders about."""
    generator = torch.Generator().manual_seed(0)
    for step, multiplier in enumerate(MULTIPLIERS, start=1):
        moved(model, generator)
        average.update(model, step=step, multiplier=multiplier)
        watch(step, model)


def states_of(model):
    return {
        name: parameter.detach().double().clone() for name, parameter in model.named_parameters()
    }


def test_ema_is_a_plain_loop(tiny_network):
    expected = {}

    def watch(step, model):
        for name, state in states_of(model).items():
            before = expected.get(name, state)
            expected[name] = 0.9 * before + 0.1 * state

    average = Average(tiny_network, AverageConfig(kind="ema", decay=0.9))
    trained(tiny_network, average, watch=watch)
    assert average.n_averaged == len(MULTIPLIERS)
    for name, mean in average.weights().items():
        torch.testing.assert_close(mean.double(), expected[name], atol=1e-6, rtol=1e-5)


def test_ema_is_torch_s(tiny_network):
    theirs = AveragedModel(tiny_network, multi_avg_fn=get_ema_multi_avg_fn(0.95))
    average = Average(tiny_network, AverageConfig(kind="ema", decay=0.95))
    trained(tiny_network, average, watch=lambda step, model: theirs.update_parameters(model))
    expected = dict(theirs.module.named_parameters())
    assert average.weights().keys() == expected.keys()
    for name, mean in average.weights().items():
        torch.testing.assert_close(mean, expected[name].detach())


def test_swa_takes_the_states_of_the_warmdown_alone(tiny_network):
    """Steps 16, 18 and 20 are even and below 0.45; the warmup is low too, but rises."""
    taken = []
    theirs = AveragedModel(tiny_network)

    def watch(step, model):
        if step in (16, 18, 20):
            taken.append(states_of(model))
            theirs.update_parameters(model)

    average = Average(tiny_network, AverageConfig(kind="swa", every=2, below=0.45))
    trained(tiny_network, average, watch=watch)
    assert average.n_averaged == len(taken) == 3
    expected = dict(theirs.module.named_parameters())
    for name, mean in average.weights().items():
        by_hand = sum(state[name] for state in taken) / 3
        torch.testing.assert_close(mean.double(), by_hand, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(mean, expected[name].detach())


def test_a_warmdown_without_full_rate_counts_from_its_first_fall(tiny_network):
    average = Average(tiny_network, AverageConfig(kind="swa", every=1, below=1.0))
    for step, multiplier in enumerate([0.3, 0.3, 0.2, 0.1], start=1):
        average.update(tiny_network, step=step, multiplier=multiplier)
    assert average.n_averaged == 2


@pytest.mark.parametrize("kind", ["ema", "swa"])
@pytest.mark.parametrize("stop", [2, 17])
def test_resumed_bit_for_bit(tiny_network, tmp_path, kind, stop):
    config, path = AverageConfig(kind=kind, decay=0.9, every=2), tmp_path / "average.safetensors"
    states = []

    def watch(step, model):
        states.append(copy.deepcopy(model))
        if step == stop:
            save_file(whole.tensors(), path)

    whole = Average(tiny_network, config)
    trained(tiny_network, whole, watch=watch)
    resumed = Average(tiny_network, config)
    resumed.load(load_file(path))
    for step in range(stop, len(MULTIPLIERS)):
        resumed.update(states[step], step=step + 1, multiplier=MULTIPLIERS[step])
    expected = whole.tensors()
    assert resumed.tensors().keys() == expected.keys() and len(expected) > 1
    assert all(torch.equal(each, expected[name]) for name, each in resumed.tensors().items())


def test_the_average_stands_beside_the_model(tiny_network):
    average = Average(tiny_network, AverageConfig(kind="ema", decay=0.5))
    assert average.weights() == {}  # nothing taken yet
    trained(tiny_network, average)
    own = states_of(tiny_network)
    averaged = copy.deepcopy(tiny_network)
    load_state(averaged, averaged.state_dict() | average.weights())
    ids = torch.arange(12)[None]
    assert not torch.equal(averaged(ids), tiny_network(ids))
    for name, parameter in averaged.named_parameters():
        assert torch.equal(parameter, average.weights()[name])
        assert not torch.equal(parameter.double(), own[name])


def test_weights_of_half_precision_are_averaged_in_full():
    """In bfloat16 the changes would be lost: 0.001 of a difference is under its last digit."""
    model = torch.nn.Linear(3, 3).bfloat16()
    average = Average(model, AverageConfig(kind="ema", decay=0.999))
    with torch.no_grad():
        model.weight.fill_(1.0)
        average.update(model, step=1, multiplier=1.0)
        model.weight.fill_(2.0)
        average.update(model, step=2, multiplier=1.0)
    assert average.weights()["weight"].dtype == torch.float32
    assert torch.allclose(average.weights()["weight"], torch.tensor(1.001), rtol=1e-6)


def test_kind_none_holds_nothing(tiny_network):
    average = Average(tiny_network, AverageConfig())
    trained(tiny_network, average)
    assert average.weights() == {} and average.n_averaged == 0
    assert average.tensors().keys() == {"none.counts"}
    average.load(average.tensors())


def test_an_average_of_another_kind_begins_anew(tiny_network):
    """A branch that averages otherwise than its parent must not count the parent's mean."""
    parent = Average(tiny_network, AverageConfig(kind="ema"))
    trained(tiny_network, parent)
    child = Average(tiny_network, AverageConfig(kind="swa"))
    child.load(parent.tensors())
    child.load({})
    assert child.n_averaged == 0 and child.highest == 0.0 and child.weights() == {}


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "lawa"},
        {"kind": "ema", "decay": 1.0},
        {"kind": "ema", "decay": float("nan")},
        {"kind": "swa", "every": 0},
        {"kind": "swa", "below": 0.0},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(InputError, match="average"):
        AverageConfig(**settings)
