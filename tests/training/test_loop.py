"""The loop: what a run leaves behind when it ends well, badly, early, or never began."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from workbench.evaluation import bits_per_byte, token_table
from workbench.folder import InputError, read_json, read_jsonl
from workbench.model import load_model, new_network, preset, state
from workbench.text import IGNORED
from workbench.text.tokens import record_batches, stream_batches
from workbench.training import (
    AverageConfig,
    Muon,
    OptimizerConfig,
    Switch,
    TrainConfig,
    begin,
    judge_start,
    learned_scalars,
    next_token_loss,
    orthogonalize,
    train,
)
from workbench.training.measure import noise

SHORT = TrainConfig(
    steps=6,
    tokens_per_step=64,
    sequence_length=16,
    micro_batches=2,
    warmdown_steps=3,
    validate_every=4,
    validation_tokens=160,
    checkpoints=2,
)
PROMISED = {
    *("step", "tokens", "seconds", "ms", "loss", "grad_norm"),
    *("learning_rate", "learning_rate_multiplier", "momentum", "scalars"),
}


def losses(run):
    return [line["loss"] for line in read_jsonl(run.metrics)]


# --- a run that ends well --------------------------------------------------------------------


def test_a_finished_run_answers_for_itself(start, tiny_data):
    network, run = start(SHORT)
    seen = []
    returned = train(network, tiny_data, SHORT, run, watch=seen.append)
    lines = read_jsonl(run.metrics)
    assert lines == seen and returned is network and not network.training
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["tokens"] for line in lines] == [64, 128, 192, 256, 320, 384]
    assert all(set(line) >= PROMISED for line in lines)
    measured = [line["step"] for line in lines if "validation_bits_per_byte" in line]
    assert measured == [4, 6], "every fourth, and the last"
    assert [line["learning_rate_multiplier"] for line in lines] == pytest.approx(
        [1, 1, 1, 1, 2 / 3, 1 / 3]
    )
    assert lines[4]["learning_rate"] == pytest.approx(0.04 * 2 / 3)
    assert [line["momentum"] for line in lines] == pytest.approx(
        [0.85 + 0.1 * step / 500 for step in range(6)]
    )
    assert lines[0]["loss"] == pytest.approx(math.log(257), abs=0.02), "uniform at first"
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.3

    record = run.record()
    assert (record["status"], record["steps_done"], record["parent"]) == ("finished", 6, None)
    assert record["training"]["optimizer"]["momentum"] == 0.95
    assert record["data"] == tiny_data.identity()
    assert record["parameters"] == sum(p.numel() for p in network.parameters())
    assert (run.path / "run.json").stat().st_size < 10_000
    assert read_json(run.path / "model.json") == record["model"]
    loaded = state(load_model(run.path))
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in state(network).items())


def test_the_last_validation_is_the_evaluation(start, tiny_data):
    config = replace(SHORT, validation_tokens=10**6)
    network, run = start(config)
    train(network, tiny_data, config, run)
    table = token_table(network, tiny_data.validation, tiny_data.tokenizer, sequence_length=16)
    logged = read_jsonl(run.metrics)[-1]["validation_bits_per_byte"]
    assert logged == pytest.approx(bits_per_byte(table).bits_per_byte, rel=1e-6)


@pytest.mark.parametrize(
    ("steps", "checkpoints", "expected"),
    [
        (6, 2, [0, 3, 6]),
        (7, 3, [0, 3, 5, 7]),
        (3, 8, [0, 1, 2, 3]),
        (4, 0, []),
        (49, 49, list(range(50))),
    ],
)
def test_kept_checkpoints(start, tiny_data, steps, checkpoints, expected):
    config = replace(SHORT, steps=steps, checkpoints=checkpoints, validate_every=0)
    network, run = start(config)
    fresh = {name: tensor.clone() for name, tensor in state(network).items()}
    train(network, tiny_data, config, run)
    kept = sorted(run.checkpoints.glob("*")) if checkpoints else []
    assert [path.name for path in kept] == [f"step-{step:06d}.safetensors" for step in expected]
    if kept:
        first, last = load_file(kept[0]), load_file(kept[-1])
        assert all(torch.equal(first[name], fresh[name]) for name in fresh)
        assert all(torch.equal(last[name], tensor) for name, tensor in state(network).items())


def test_same_seed_same_losses(start, tiny_data):
    curves = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(curves))  # the global generator must not matter
        network, run = start(SHORT, seed=seed)
        train(network, tiny_data, SHORT, run)
        curves.append(losses(run))
    assert curves[0] == curves[1] != curves[2]


def test_scalars_are_named_and_logged(start, tiny_data):
    network, run = start(SHORT, n_layer=3)
    with torch.no_grad():
        network.blocks[1].attn.q_gain[2] = 2.5
        network.blocks[0].resid_mix[1, :8] = 0.5
    scalars = learned_scalars(network)
    assert scalars["blocks.1.attn.q_gain.2"] == 2.5 and scalars["blocks.1.attn.q_gain.1"] == 1.5
    assert (
        scalars["blocks.0.resid_mix.0.mean"] == 1 and scalars["blocks.0.resid_mix.1.mean"] == 0.25
    )
    assert scalars["value_residual.alpha.1"] == 0.5 and scalars["blocks.2.mlp_scale.mean"] == 1
    assert scalars["skip_weights.mean"] == 1
    assert len(scalars) == 3 * (4 + 1 + 1 + 2) + 2 + 1
    train(network, tiny_data, SHORT, run)
    assert set(read_jsonl(run.metrics)[0]["scalars"]) == set(scalars)
    assert read_jsonl(run.metrics)[-1]["scalars"] == learned_scalars(network)


def test_one_block_and_a_free_objective(start, tiny_data):
    """One block: no skip, no alpha. An objective of one's own sees model, inputs and targets."""

    def doubled(model, inputs, targets):
        assert inputs.shape == targets.shape == (4, 16)  # 64 tokens fit one pass
        return 2 * next_token_loss(model, inputs, targets)

    network, run = start(SHORT, n_layer=1)
    train(network, tiny_data, SHORT, run, objective=doubled)
    assert losses(run)[0] == pytest.approx(2 * math.log(257), abs=0.04)


def test_bfloat16_trains_as_float32_does(start, tiny_data):
    curves = []
    for dtype in ("float32", "bfloat16"):
        config = replace(SHORT, dtype=dtype)
        network, run = start(config)
        train(network, tiny_data, config, run)
        assert all(tensor.dtype == torch.float32 for tensor in state(network).values())
        curves.append(losses(run))
    assert curves[0] != curves[1]
    np.testing.assert_allclose(*curves, atol=0.1)


@pytest.mark.gpu
def test_trains_on_a_gpu(start, tiny_data):
    config = replace(SHORT, device="cuda", dtype="bfloat16")
    network, run = start(config)
    train(network, tiny_data, config, run)
    assert losses(run)[-1] < losses(run)[0] - 0.3
    load_model(run.path)


# --- one step --------------------------------------------------------------------------------


def gradients(start, data, config):
    """Return the gradient that the first update is made from."""
    network, run = start(config)
    found = {}

    for name, parameter in network.named_parameters():
        with torch.no_grad():
            parameter.add_(0.01)  # no longer the identity, so that every gradient is there
        parameter.register_post_accumulate_grad_hook(
            lambda p, name=name: found.__setitem__(name, p.grad.clone())
        )
    train(network, data, replace(config, steps=1, checkpoints=0, measure_every=0), run)
    return found, read_jsonl(run.metrics)[0]


def test_micro_batches_add_up_to_one_batch(start, tiny_data):
    """The official cut drops a token between micro-batches, so the batch is rebuilt by hand."""
    config = replace(SHORT, micro_batches=4, tokens_per_pass=16)
    summed, line = gradients(start, tiny_data, config)
    network, _ = start(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01)
    batch = stream_batches(
        tiny_data.train, sequence_length=16, tokens_per_step=64, micro_batches=4
    )(0)
    inputs, targets = map(torch.from_numpy, batch)
    loss = F.cross_entropy(network(inputs).flatten(0, 1), targets.flatten())
    loss.backward()
    assert line["loss"] == pytest.approx(float(loss.detach()), rel=1e-6)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(summed[name], parameter.grad, rtol=1e-4, atol=1e-7)
    norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in network.parameters()))
    assert line["grad_norm"] == pytest.approx(norm, rel=1e-5)


def test_the_first_update_by_hand(start, tiny_data):
    """Adam's first step is the rate times the sign; Muon's is the rate times its direction."""
    config = replace(SHORT, warmdown_steps=0, steps=1)
    network, run = start(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01)
    before = {name: tensor.clone() for name, tensor in state(network).items()}
    grads = {}
    for name, parameter in network.named_parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda p, name=name: grads.__setitem__(name, p.grad.clone())
        )
    train(network, tiny_data, config, run)
    for name, rate in (("skip_weights", 0.04), ("blocks.0.attn_scale", 0.04)):
        clear = grads[name].abs() > 1e-5
        expected = before[name] - rate * grads[name].sign()
        torch.testing.assert_close(
            state(network)[name][clear], expected[clear], rtol=0, atol=1e-3 * rate
        )
    moved = before["blocks.0.mlp.fc.weight"] - state(network)["blocks.0.mlp.fc.weight"]
    left, _, right = torch.linalg.svd(grads["blocks.0.mlp.fc.weight"], full_matrices=False)
    inner = (left.mT @ moved @ right.mT).diagonal() / (0.04 * math.sqrt(2))  # 32 rows, 16 columns
    assert (inner[:4] > 0.6).all() and (inner < 1.3).all()


def test_six_updates_by_hand(start, tiny_data):
    """Rate, momentum and gradient of every step, in plain loops over a twin of the network."""
    rate = OptimizerConfig(momentum_warmup_steps=4, matrix_lr=0.08, scalar_lr=0.08)
    rate = replace(rate, tied_embedding_lr=0.1)
    config = replace(SHORT, optimizer=rate, learning_rate_factor=0.5, warmup_steps=2)
    network, run = start(config)
    twin = new_network(network.config, seed=0)
    train(network, tiny_data, config, run)
    batch = stream_batches(tiny_data.train, sequence_length=16, tokens_per_step=64, micro_batches=2)
    rates = {"tok_emb.weight": 0.05}
    memory = {
        name: [torch.zeros_like(p), torch.zeros_like(p)] for name, p in twin.named_parameters()
    }
    expected = []
    for step, share in enumerate([1 / 2, 1, 1, 1, 2 / 3, 1 / 3]):
        momentum = [0.85, 0.875, 0.9, 0.925, 0.95, 0.95][step]
        inputs, targets = map(torch.from_numpy, batch(step))
        loss = F.cross_entropy(twin(inputs).flatten(0, 1), targets.flatten())
        expected.append(float(loss.detach()))
        named = dict(twin.named_parameters())
        grads = torch.autograd.grad(loss, list(named.values()))
        with torch.no_grad():
            for (name, weight), grad in zip(named.items(), grads, strict=True):
                one, two = memory[name]
                if any(part in name for part in (".c_", "proj", "fc")):
                    one.mul_(momentum).add_(grad)
                    direction = orthogonalize(grad + momentum * one)
                    weight -= 0.04 * share * max(1, len(grad) / grad.shape[1]) ** 0.5 * direction
                    continue
                one.mul_(0.9).add_(0.1 * grad)
                two.mul_(0.95).add_(0.05 * grad**2)
                mean, square = one / (1 - 0.9 ** (step + 1)), two / (1 - 0.95 ** (step + 1))
                weight -= rates.get(name, 0.04) * share * mean / (square.sqrt() + 1e-8)
    assert losses(run) == pytest.approx(expected, rel=1e-4)
    assert read_jsonl(run.metrics)[0]["learning_rate"] == pytest.approx(0.04 / 2)
    for name, weight in twin.named_parameters():
        difference = (state(network)[name] - weight.detach()).square().mean().sqrt()
        assert float(difference) < 2e-3, name


@pytest.mark.parametrize("limit", [0.05, 1e6])
def test_clipping_bounds_what_the_optimizers_see(start, tiny_data, limit, monkeypatch):
    seen = []

    def spy(self, closure=None):
        seen.extend(p.grad.clone() for group in self.param_groups for p in group["params"])

    for kind in (Muon, torch.optim.Adam):
        monkeypatch.setattr(kind, "step", spy)
    config = replace(SHORT, steps=1, optimizer=OptimizerConfig(clip_grad_norm=limit))
    network, run = start(config)
    train(network, tiny_data, config, run)
    logged = read_jsonl(run.metrics)[0]["grad_norm"]
    norm = math.sqrt(sum(float(grad.double().square().sum()) for grad in seen))
    assert logged > 0.05, "what is logged is the norm before clipping"
    assert norm == pytest.approx(min(limit, logged), rel=1e-4)


def test_next_token_loss_leaves_ignored_targets_out(tiny_network):
    inputs = torch.arange(12).reshape(2, 6)
    targets = torch.tensor([[1, IGNORED, 3, IGNORED, 5, 6], [IGNORED] * 6])
    with torch.no_grad():
        found = float(next_token_loss(tiny_network, inputs, targets))
        p = tiny_network(inputs).double().softmax(-1)
    by_hand = -sum(math.log(p[0, t, targets[0, t]]) for t in (0, 2, 4, 5))
    assert found == pytest.approx(by_hand, rel=1e-5)


def test_only_answers_are_learned(own_data_root, tiny_world_data):
    """The loss of a step is the mean over its answer tokens, whatever the micro-batches."""
    data = tiny_world_data
    config = replace(SHORT, sequence_length=60, tokens_per_step=600, micro_batches=3, steps=2)
    fields = {"n_layer": 2, "d_model": 16, "vocab_size": data.tokenizer.vocab_size}
    network = new_network(preset("demo", **fields), seed=0)
    twin = new_network(preset("demo", **fields), seed=0)
    run = begin("world", network, data, config)
    train(network, data, config, run)
    inputs, targets = record_batches(
        data.train, sequence_length=60, tokens_per_step=600, seed=config.seed
    )(0)
    assert len(inputs) == 10
    total, count = 0.0, 0
    with torch.no_grad():
        for row in range(10):
            log_p = twin(torch.from_numpy(inputs[row : row + 1]))[0].double().log_softmax(-1)
            for position in np.flatnonzero(targets[row] != IGNORED):
                total -= float(log_p[position, targets[row, position]])
                count += 1
    line = read_jsonl(run.metrics)[0]
    assert 10 < count < 100 and line["tokens"] == count
    assert line["loss"] == pytest.approx(total / count, rel=1e-5)


def test_the_start_is_judged_by_what_it_knows(tiny_run, tiny_data):
    sizes = {"sequence_length": 16, "tokens": 160}
    fresh = new_network(preset("demo", n_layer=2, d_model=16, vocab_size=257), seed=0)
    found = judge_start(fresh, tiny_data, **sizes)
    assert found["loss"] == pytest.approx(math.log(257), abs=0.3)
    assert "knows nothing" in found["diagnosis"] and not found["passed"]
    trained = judge_start(load_model(tiny_run.path), tiny_data, **sizes)
    assert trained["bits_per_byte"] < found["bits_per_byte"]
    assert trained["trained"] is True and found["trained"] is False
    with torch.no_grad():
        fresh.blocks[0].mlp.fc.weight[0, 0] = float("nan")
    broken = judge_start(fresh, tiny_data, **sizes)
    assert not broken["passed"] and not broken["trained"] and broken["loss"] is None
    small = new_network(preset("demo", n_layer=1, d_model=16, vocab_size=256), seed=0)
    with pytest.raises(InputError, match="at least the tokenizer's 257"):
        judge_start(small, tiny_data, **sizes)


# --- what is taken on late, and what is averaged ---------------------------------------------


def test_a_switch_cuts_on_where_the_text_stood(start, tiny_data):
    """Longer rows and larger steps after half of the run; no token is skipped or read twice."""
    switch = Switch(at=0.5, sequence_length=32, tokens_per_step=128)
    config = replace(SHORT, switches=(switch,), measure_every=0)
    seen = []

    def objective(model, inputs, targets):
        seen.append((inputs.clone(), targets.clone()))
        return next_token_loss(model, inputs, targets)

    network, run = start(config)
    train(network, tiny_data, config, run, objective=objective)
    assert [tuple(inputs.shape) for inputs, _ in seen] == [(4, 16)] * 3 + [(4, 32)] * 3
    assert [line["tokens"] for line in read_jsonl(run.metrics)] == [64, 128, 192, 320, 448, 576]
    spans = []
    for inputs, targets in seen:  # two spans a step, each a token longer than what it scores
        for half in range(2):
            rows = slice(2 * half, 2 * half + 2)
            spans.append(torch.cat([inputs[rows].flatten(), targets[rows].flatten()[-1:]]))
    read = torch.cat(spans).numpy()
    assert np.array_equal(read, tiny_data.train.ids[: len(read)])


def test_a_run_ends_with_its_average(start, tiny_data):
    config = replace(SHORT, average=AverageConfig(kind="ema", decay=0.5), checkpoints=6)
    network, run = start(config)
    train(network, tiny_data, config, run)
    kept = [load_file(run.checkpoints / f"step-{step:06d}.safetensors") for step in range(1, 7)]
    mean = {name: tensor.double() for name, tensor in kept[0].items()}
    for each in kept[1:]:
        mean = {name: (mean[name] + each[name]) / 2 for name in mean}
    found = state(load_model(run.path))
    for name, tensor in mean.items():
        torch.testing.assert_close(found[name].double(), tensor, rtol=1e-5, atol=1e-7)


def test_measurements_change_nothing(start, tiny_data):
    """Gradients of passes are taken apart for the noise, and put together again bit for bit."""
    traces = []
    for every in (0, 1):
        config = replace(SHORT, measure_every=every, tokens_per_pass=16)
        network, run = start(config)
        train(network, tiny_data, config, run)
        traces.append((losses(run), state(network)))
        assert ("gradient_variance" in read_jsonl(run.metrics)[0]) == bool(every)
    assert traces[0][0] == traces[1][0]
    assert all(torch.equal(traces[0][1][name], traces[1][1][name]) for name in traces[0][1])


def test_noise_is_measured_as_it_was_planted():
    """Gradients drawn around a known mean: the estimates find mean and variance."""
    draw = torch.Generator().manual_seed(0)
    mean, width, sizes = torch.full((400,), 0.5), 3.0, [8, 8, 8, 8]
    found = []
    for _ in range(200):
        passes = [mean + width / s**0.5 * torch.randn(400, generator=draw) for s in sizes]
        whole = torch.stack(passes).mean(dim=0)
        squares = [each.square().sum() for each in passes]
        found.append(noise(squares, whole.square().sum(), sizes))
    variance = np.mean([float(each["gradient_variance"]) for each in found])
    square = np.mean([float(each["gradient_square"]) for each in found])
    assert variance == pytest.approx(400 * width**2, rel=0.02)
    assert square == pytest.approx(400 * 0.25, rel=0.05)
