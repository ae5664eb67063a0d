"""Late quantisation: on the exporter's grid to the bit, and alive under a compiler."""

import pytest
import torch

from workbench.quantization.grid import Grid, integer_grid, nearest, power_scale
from workbench.quantization.late import LateQuantization
from workbench.training import next_token_loss


@pytest.fixture
def late(tiny_network):
    grids = {
        name: integer_grid(parameter.detach(), bits=4)
        for name, parameter in tiny_network.named_parameters()
        if name.endswith(".weight")
    }
    return LateQuantization(grids=grids)


def ids(seed):
    return torch.randint(0, 257, (2, 12), generator=torch.Generator().manual_seed(seed))


def test_values_are_those_of_the_exporter(tiny_network, late):
    exact = late.values(tiny_network)
    named = dict(tiny_network.named_parameters())
    assert all(torch.equal(exact[name], named[name]) for name in late.grids), "off: nothing moves"
    late.watch({"learning_rate_multiplier": 0.2})
    assert late.blend == 0
    late.watch({"learning_rate_multiplier": 0.1})
    for name, value in late.values(tiny_network).items():
        assert torch.equal(value, nearest(named[name].detach(), late.grids[name]).values())


@pytest.mark.parametrize(("dead_zone", "shrink"), [(0.0, 0.0), (0.1, 0.0), (0.1, 0.05)])
def test_values_are_exact_on_any_grid_and_far_beyond_its_end(dead_zone, shrink):
    """Clipped weights were off by a last place, and a wider zero was not that of the exporter."""
    generator = torch.Generator().manual_seed(1)
    model = torch.nn.Linear(24, 8, bias=False)
    torch.nn.init.normal_(model.weight, generator=generator)
    with torch.no_grad():
        model.weight[:, 0] *= 300
    grid = Grid(
        row_scale=power_scale(torch.rand(8, 1, generator=generator) + 0.1),
        column_scale=power_scale(torch.rand(24, generator=generator) + 0.1),
        limit=5,
        dead_zone=dead_zone,
        shrink=shrink,
    )
    late = LateQuantization(grids={"weight": grid}, blend=torch.ones(()))
    value = late.values(model)["weight"]
    assert torch.equal(value, nearest(model.weight.detach(), grid).values())
    value.sum().backward()
    assert torch.equal(model.weight.grad, torch.ones_like(model.weight))


def test_a_warmup_does_not_turn_it_on(late):
    for multiplier in (0.05, 0.1, 0.5, 1.0, 0.5, 0.16):
        late.watch({"learning_rate_multiplier": multiplier})
        assert late.blend == 0
    late.watch({"learning_rate_multiplier": 0.14})
    assert late.blend == 1


def test_gradients_are_those_at_the_quantised_weights(tiny_network, late):
    late.blend.fill_(1.0)
    late.wrap(next_token_loss)(tiny_network, ids(0), ids(1)).backward()
    through = {name: each.grad.clone() for name, each in tiny_network.named_parameters()}
    with torch.no_grad():
        for name, value in late.values(tiny_network).items():
            tiny_network.get_parameter(name).copy_(value)
    tiny_network.zero_grad()
    next_token_loss(tiny_network, ids(0), ids(1)).backward()
    for name, each in tiny_network.named_parameters():
        torch.testing.assert_close(through[name], each.grad, rtol=1e-4, atol=1e-6)


def test_a_compiled_step_sees_it_turned_on(tiny_network, late):
    """The dead branch of a published record: traced while off, it must not stay off."""
    objective = late.wrap(next_token_loss)
    compiled = torch.compile(
        lambda inputs, targets: objective(tiny_network, inputs, targets), backend="aot_eager"
    )
    off = float(compiled(ids(0), ids(1)).detach())
    late.blend.fill_(1.0)
    on = float(compiled(ids(0), ids(1)).detach())
    assert off == pytest.approx(
        float(next_token_loss(tiny_network, ids(0), ids(1)).detach()), rel=1e-5
    )
    assert on == pytest.approx(float(objective(tiny_network, ids(0), ids(1)).detach()), rel=1e-5)
    assert abs(on - off) > 1e-3
