"""The compiler is held to account: what it did, why, when; and nothing of the run depends on it."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from workbench.folder import read_jsonl
from workbench.model import load_model, state
from workbench.quantization import LateQuantization
from workbench.quantization.grid import integer_grid
from workbench.training import Switch, TrainConfig, next_token_loss, train, train_config
from workbench.training import compiled as module
from workbench.training.compiled import warm_up
from workbench.training.step import Learner

CONFIG = TrainConfig(
    steps=6,
    tokens_per_step=128,
    sequence_length=16,
    micro_batches=2,
    tokens_per_pass=128,
    warmdown_steps=3,
    validate_every=2,
    validation_tokens=160,
    checkpoints=2,
    measure_every=2,
    resume_seconds=0.0,
)
COMPILED = replace(CONFIG, compile=True)
LEAF = "ignore:The .grad attribute of a Tensor that is not a leaf"  # the compiler's own


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Trace as ever, and leave out the slow part."""
    monkeypatch.setattr(module, "BACKEND", "eager")


@pytest.fixture
def run_of(start, tiny_data):
    """Train; return the folder and the losses."""

    def make(config, **options):
        network, run = start(config, n_layer=1)
        train(network, tiny_data, config, run, **options)
        return run, [line["loss"] for line in read_jsonl(run.metrics)]

    return make


def test_a_run_is_the_same_and_its_record_says_what_was_compiled(run_of):
    switch = Switch(at=0.5, sequence_length=32)
    config = replace(COMPILED, tokens_per_pass=48, switches=(switch,))
    run, losses = run_of(config)
    told = run.record()["compile"]
    assert told["backend"] == "eager" and told["graph_breaks"] == {}
    # Rows of 16: three or two a pass; rows of 32: one a pass.
    assert told["graphs"] == 3 and told["none_after_warm_up"]
    assert [each["step"] for each in told["recompiles"]] == [0, 0]
    assert all("size mismatch" in each["cause"] for each in told["recompiles"])
    first = read_jsonl(run.metrics)[0]
    assert told["seconds"] > first["seconds"], "compiling is no training time"
    names = {path.name: set(safe_open(path, "pt").keys()) for path in run.checkpoints.iterdir()}
    names |= {path.name + "s": set(safe_open(path, "pt").keys()) for path in run.states.iterdir()}
    plain, own = run_of(replace(config, compile=False))
    assert losses == pytest.approx(own, rel=1e-6)
    assert "compile" not in plain.record()
    for path in plain.checkpoints.iterdir():
        assert names[path.name] == set(safe_open(path, "pt").keys())
    for path in plain.states.iterdir():
        assert names[path.name + "s"] == set(safe_open(path, "pt").keys())


def printing(model, inputs, targets):
    print(end="")
    return next_token_loss(model, inputs, targets)


def reading(model, inputs, targets):
    loss = next_token_loss(model, inputs, targets)
    return loss * (loss.detach().item() / loss.detach())


@pytest.mark.filterwarnings(LEAF)
@pytest.mark.parametrize(
    ("objective", "cause"), [(printing, "`print`"), (reading, "Tensor.item"), (next_token_loss, "")]
)
def test_a_graph_break_is_named(run_of, objective, cause):
    told = run_of(replace(COMPILED, steps=1), objective=objective)[0].record()["compile"]
    assert bool(told["graph_breaks"]) == bool(cause)
    assert all(cause in each and "Hint" not in each for each in told["graph_breaks"])
    assert told["none_after_warm_up"]


class Drifting(torch.nn.Module):
    """An objective whose factor, a number of Python, changes while it is trained."""

    factor = 1.0

    def forward(self, model, inputs, targets):
        return next_token_loss(model, inputs, targets) * self.factor


def test_a_late_recompile_is_named_with_its_step(run_of):
    objective = Drifting()

    def drift(line):
        if line["step"] == 3:
            objective.factor = 1.5

    told = run_of(COMPILED, objective=objective, watch=drift)[0].record()["compile"]
    late = [each for each in told["recompiles"] if each["step"]]
    assert not told["none_after_warm_up"] and {each["step"] for each in late} == {4}
    assert [("factor" in each["cause"], each["seconds"] > 0) for each in late] == [(True, True)], (
        late
    )
    healthy = run_of(COMPILED, objective=Drifting())[0].record()["compile"]
    assert healthy["none_after_warm_up"] and healthy["recompiles"] == []


def test_a_shape_that_was_not_foreseen_is_named(run_of):
    length = [12]

    def cut(model, inputs, targets):
        return next_token_loss(model, inputs[:, : length[0]], targets[:, : length[0]])

    def grow(line):
        if line["step"] == 2:
            length[0] = 16

    told = run_of(COMPILED, objective=cut, watch=grow)[0].record()["compile"]
    assert [each["step"] for each in told["recompiles"]] == [3]
    assert "length" in told["recompiles"][0]["cause"] and not told["none_after_warm_up"]


def test_late_quantisation_acts_and_compiles_nothing_new(run_of, start):
    losses = {}
    for name, config in (("plain", CONFIG), ("compiled", COMPILED), ("never", CONFIG)):
        network, _ = start(config, n_layer=1)
        grids = {
            each: integer_grid(parameter.detach() + 0.1, bits=3)
            for each, parameter in network.named_parameters()
            if each.startswith("blocks.") and each.endswith(".weight")
        }
        late = LateQuantization(grids=grids, begin=0.0 if name == "never" else 0.9)
        objective = late.wrap(next_token_loss)
        run, losses[name] = run_of(config, objective=objective, watch=late.watch)
        if name == "compiled":
            assert run.record()["compile"]["none_after_warm_up"]
    assert losses["compiled"] == pytest.approx(losses["plain"], rel=1e-5)
    assert losses["plain"][-1] != pytest.approx(losses["never"][-1], rel=1e-5)


def test_a_compiled_run_that_was_cut_short_continues(run_of, start, tiny_data):
    config = replace(COMPILED, steps=4)
    whole, losses = run_of(config)
    weights = state(load_model(whole.path))

    def kill(line):
        if line["step"] == 2:
            raise SystemExit

    network, run = start(config, n_layer=1)
    with pytest.raises(SystemExit):
        train(network, tiny_data, config, run, watch=kill)
    train(network, tiny_data, config, run)
    assert [line["loss"] for line in read_jsonl(run.metrics)] == losses
    assert all(torch.equal(each, weights[name]) for name, each in state(network).items())


def test_the_warm_up_leaves_nothing_behind(tiny_network, tiny_data):
    def noisy(model, inputs, targets):
        return next_token_loss(model, inputs, targets) * torch.rand(())

    before = torch.get_rng_state()
    weights = {name: each.clone() for name, each in state(tiny_network).items()}
    warm_up(Learner(tiny_network, noisy), tiny_data, CONFIG)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(each.grad is None for each in tiny_network.parameters())
    assert all(torch.equal(each, weights[name]) for name, each in state(tiny_network).items())


def test_it_is_off_on_a_processor_unless_asked_for():
    assert not train_config(optimizer={}, device="cpu").compile
    assert train_config(optimizer={}, device="cpu", compile=True).compile


@pytest.mark.gpu
def test_it_is_on_for_a_gpu_unless_refused():
    assert train_config(optimizer={}, device="cuda").compile
    assert not train_config(optimizer={}, device="cuda", compile=False).compile
