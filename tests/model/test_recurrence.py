"""Blocks that recur, against a network that has a copy of them for every visit."""

import pytest
import torch
from recurrent_networks import BLOCKS, SHAPE, looped, unrolled

from workbench.folder import InputError
from workbench.model import (
    RecurrenceConfig,
    cache_bytes,
    flops_per_token,
    from_json,
    parameters_by_part,
    preset,
    record,
    to_json,
)
from workbench.model.recurrence import MOST_PASSES

IDS = torch.tensor([[1, 4, 4, 7, 2], [9, 0, 3, 10, 5]])


@pytest.mark.parametrize("base", ["demo", "baseline", "llama"])
@pytest.mark.parametrize(
    ("passes", "visits"), [(3, range(8)), (2, [0, 1, 2, 3, 4, 7]), (1, [0, 1, 2, 7])]
)
def test_a_network_is_its_unrolled_twin(base, passes, visits):
    network = looped(base)
    network.take_passes(passes)
    twin = unrolled(network, list(visits))
    torch.testing.assert_close(network(IDS), twin(IDS), rtol=1e-12, atol=1e-12)
    for each in (network, twin):
        each(IDS).square().sum().backward()
    for name, parameter in network.blocks.named_parameters():
        block, rest = name.split(".", 1)
        copies = [i for i, v in enumerate(visits) if BLOCKS[v] == int(block)]
        summed = sum(twin.blocks.get_parameter(f"{copy}.{rest}").grad for copy in copies)
        torch.testing.assert_close(parameter.grad, summed, rtol=1e-9, atol=1e-11)


def test_sites_are_those_of_visits():
    network = looped()
    assert network.config.visits == BLOCKS
    twin = unrolled(network, list(range(8)))
    assert network.sites() == twin.sites()
    names = [f"visit.{visit}.head_out" for visit in range(8)]
    with record(network, names) as seen, record(twin, names) as theirs:
        network(IDS), twin(IDS)
    for name in names:
        torch.testing.assert_close(seen[name], theirs[name], rtol=1e-12, atol=1e-12)
    network.take_passes(2)
    with record(network, network.sites()) as seen:
        network(IDS)
    ran = {int(name.split(".")[1]) for name in seen if name.startswith("visit")}
    assert ran == {0, 1, 2, 3, 4, 7}


def test_a_recurrent_block_costs_arithmetic_and_cache_but_no_parameters():
    network = looped()
    once = preset("demo", **SHAPE)
    config, deep = network.config, unrolled(network, list(range(8))).config
    for part in ("attention", "feedforward", "embedding"):
        assert parameters_by_part(config)[part] == parameters_by_part(once)[part]
    assert cache_bytes(config, context=7) == cache_bytes(deep, context=7)
    sizes = {"sequence_length": 12}
    assert flops_per_token(config, **sizes) == pytest.approx(flops_per_token(deep, **sizes))
    assert flops_per_token(config, passes=1, **sizes) == pytest.approx(
        flops_per_token(once, **sizes)
    )


def test_a_configuration_comes_back_from_its_file():
    config = looped().config
    assert from_json(to_json(config)) == config
    assert isinstance(from_json(to_json(config)).recurrence, RecurrenceConfig)


@pytest.mark.parametrize(
    "fields",
    [
        {"first": 2, "last": 1},
        {"first": -1, "last": 1},
        {"first": 1, "last": 4},
        {"first": 1.0, "last": 2},
        {"first": 1, "last": 2, "passes": 0},
        {"first": 1, "last": 2, "passes": MOST_PASSES + 1},
        {"first": 1, "last": 2, "passes": True},
        {"first": 1, "laps": 2},
        True,
    ],
)
def test_what_cannot_recur_is_refused(fields):
    with pytest.raises(InputError, match="model"):
        preset("demo", **{**SHAPE, "recurrence": fields})


@pytest.mark.parametrize("passes", [0, 4])
def test_no_more_passes_are_taken_than_there_are(passes):
    with pytest.raises(InputError, match="1 to 3"):
        looped().take_passes(passes)
    with pytest.raises(InputError, match="1 to 1"):
        looped(recurrence=None).take_passes(2)
