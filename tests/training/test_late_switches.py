"""What a run takes on late changes the forward pass: passes of blocks that recur, and rounding."""

from dataclasses import replace

import pytest
import torch
from recurrent_networks import unrolled

from workbench.folder import InputError, read_jsonl
from workbench.model import load_model, new_network, preset, state
from workbench.quantization import integer_grid, nearest
from workbench.training import (
    CrossEntropy,
    ObjectiveConfig,
    Switch,
    TrainConfig,
    begin,
    compiled,
    next_token_loss,
    phases,
    recorded_config,
    train,
    train_config,
)
from workbench.training.begin import batches
from workbench.training.step import Learner, gradient

RECURRENCE = {"first": 0, "last": 1, "passes": 2}
CONFIG = TrainConfig(
    steps=6,
    tokens_per_step=64,
    sequence_length=16,
    micro_batches=2,
    tokens_per_pass=64,
    warmdown_steps=3,
    validate_every=0,
    checkpoints=0,
    measure_every=0,
    resume_seconds=0.0,
    passes=1,
    switches=(Switch(at=0.5, passes=2), Switch(at=0.6, quantize_bits=4)),
)


@pytest.fixture
def start_looped(start):
    return lambda config: start(config, n_layer=3, recurrence=RECURRENCE)


def test_each_step_computes_what_its_settings_say(start_looped, tiny_data):
    """Three steps of one pass, one of two passes, then two of two passes on a grid of 4 bits."""
    network, run = start_looped(CONFIG)
    seen = []

    def objective(model, inputs, targets):
        loss = next_token_loss(model, inputs, targets)
        own = {name: each.detach().clone() for name, each in model.named_parameters()}
        seen.append((own, inputs, targets, loss.detach()))
        return loss

    train(network, tiny_data, CONFIG, run, objective=objective)
    assert len(seen) == 6 and network.order == (0, 1, 2, 3, 4)
    names = [name for name in seen[0][0] if name.endswith(".weight") and "proj" not in name]
    for step, (own, inputs, targets, loss) in enumerate(seen):
        network.load_state_dict(own)
        deep = unrolled(network, [0, 1, 4] if step < 3 else [0, 1, 2, 3, 4]).float()
        torch.testing.assert_close(next_token_loss(deep, inputs, targets), loss)
        on_grid = {
            torch.equal(own[name], nearest(own[name], integer_grid(own[name], bits=4)).values())
            for name in names
        }
        assert on_grid == {step >= 4}


def test_a_run_cut_short_before_the_switch_goes_on_as_if_it_had_not_been(start_looped, tiny_data):
    network, run = start_looped(CONFIG)
    whole = state(train(network, tiny_data, CONFIG, run))
    losses = [line["loss"] for line in read_jsonl(run.metrics)]
    network, run = start_looped(CONFIG)

    def stop(line):
        if line["step"] == 2:
            run.request_stop()

    train(network, tiny_data, CONFIG, run, watch=stop)
    assert "before all passes" in run.record()["reason"]
    config = recorded_config(run.record()["training"], {})
    assert config == CONFIG
    again = state(train(load_model(run.path), tiny_data, config, run))
    assert [line["loss"] for line in read_jsonl(run.metrics)] == losses
    assert all(torch.equal(tensor, whole[name]) for name, tensor in again.items())
    assert "before" not in str(run.record()["reason"])


@pytest.mark.parametrize("objective", [ObjectiveConfig(), ObjectiveConfig(future_tokens=1)])
def test_rounding_passes_the_gradient_of_the_rounded_weights(tiny_data, objective):
    network = new_network(preset("demo", n_layer=2, d_model=16, vocab_size=257), seed=0)
    goal = CrossEntropy(objective, d_model=16, tokenizer=tiny_data.tokenizer)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    config = replace(CONFIG, passes=None, switches=(), quantize_bits=3)
    batch = batches(tiny_data, config)(0)
    gradient(Learner(network, goal), batch, config)
    own = {name: each.grad.clone() for name, each in network.named_parameters()}
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(".weight"):
                parameter.copy_(nearest(parameter, integer_grid(parameter, bits=3)).values())
    network.zero_grad()
    gradient(Learner(network, goal), batch, replace(config, quantize_bits=None))
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(own[name], parameter.grad, msg=name)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_all_of_it_is_compiled_before_the_first_step(start_looped, tiny_data, monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    found = []
    for config in (CONFIG, replace(CONFIG, compile=True)):
        network, run = start_looped(config)
        train(network, tiny_data, config, run)
        found.append([line["loss"] for line in read_jsonl(run.metrics)])
    told = run.record()["compile"]
    assert told["graph_breaks"] == {} and told["none_after_warm_up"], told
    assert told["graphs"] == 3
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_an_even_clock_slows_down_with_the_passes():
    plan = replace(CONFIG, steps=100, seconds=60.0, switches=(Switch(at=0.5, passes=2),))
    found = {p.name: p for p in phases(plan, step_time=1.0, cost=lambda passes: passes)}
    switch = found["switch to passes 2"]
    assert (switch.begins, switch.ends) == (30, 45) and switch.level == "ok"
    assert switch.seconds == (30.0, 60.0)


def test_a_switch_holds_until_the_next(start_looped):
    late = (Switch(at=0.2, passes=2), Switch(at=0.5, passes=1), Switch(at=0.75, passes=2))
    plan = replace(CONFIG, steps=20, switches=late)
    told = [p for p in phases(plan, step_time=1.0) if p.name.startswith("switch")]
    assert [p.level for p in told] == ["ok"] * 3
    assert (told[1].begins, told[1].ends) == (10, 15)


def test_a_switch_to_what_is_already_so_is_an_error():
    plan = replace(CONFIG, switches=(Switch(at=0.5, passes=1), Switch(at=0.6, quantize_bits=4)))
    told = {p.name: p for p in phases(plan, step_time=1.0)}
    assert told["switch to passes 1"].level == "error"
    assert "was so before" in told["switch to passes 1"].reason
    assert told["switch to quantize_bits 4"].level == "ok"
    twice = replace(plan, switches=(Switch(at=0.5, passes=2), Switch(at=0.7, passes=2)))
    assert [p.level for p in phases(twice, step_time=1.0) if "passes" in p.name] == ["ok", "error"]


def test_more_passes_than_the_model_has_are_refused_before_anything_is_made(
    own_data_root, tiny_data
):
    network = new_network(preset("demo", n_layer=2, d_model=16, vocab_size=257), seed=0)
    with pytest.raises(InputError, match="up to 1, the model's"):
        begin("a", network, tiny_data, CONFIG)


@pytest.mark.parametrize("late", [(), (Switch(at=0.5, passes=2), Switch(at=0.7, passes=1))])
def test_a_plan_that_ends_below_all_passes_is_refused(start_looped, late):
    """What is saved would run passes that were never trained."""
    with pytest.raises(InputError, match="at the end"):
        start_looped(replace(CONFIG, switches=late))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"switches": [{"at": 0.5, "passes": 2}]}, "Set passes to 1"),
        ({"quantize_bits": 1}, "2 to 8"),
        ({"switches": [{"at": 0.5, "quantize_bits": 9}]}, "2 to 8"),
        ({"switches": [{"at": 0.5, "passes": 0}], "passes": 1}, "setting from 1"),
    ],
)
def test_settings_that_could_not_hold_are_refused(settings, match):
    with pytest.raises(InputError, match=match):
        train_config(optimizer={}, device="cpu", **settings)
