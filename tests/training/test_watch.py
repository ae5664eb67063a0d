import json
import os
import signal
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, load_model
from torch import nn

import workbench
from workbench import diagnostics, plots, readings, runs
from workbench.evaluation import open_run
from workbench.folder import InputError, RunFolder, read_jsonl
from workbench.model import new_network, preset
from workbench.training import next_token_loss, watch

VOCABULARY, CHANNELS = 11, 8


class Foreign(nn.Module):
    """A language model that is none of ours: the head is the embedding, the loss is returned."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, CHANNELS)
        self.mix = nn.Linear(CHANNELS, CHANNELS)
        self.gain = nn.Parameter(torch.tensor(1.0))  # no dim at all
        self.head = nn.Linear(CHANNELS, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight
        self.dropout = nn.Dropout(0.1)

    def forward(self, ids, targets=None):
        hidden = self.dropout(self.embedding(ids) * self.gain)
        logits = self.head(torch.tanh(self.mix(hidden)))
        loss = None if targets is None else F.cross_entropy(logits.mT, targets)
        return logits, loss


def foreign(seed=0):
    """Make the foreign model and its optimizer."""
    torch.manual_seed(seed)
    model = Foreign()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-2)


def batch(step, rows=3, length=5):
    """Draw ids and targets of a step, without the global generator."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(0, VOCABULARY, (rows, length + 1), generator=generator)
    return ids[:, :-1], ids[:, 1:]


def loop(model, optimizer, steps):
    """Train as a stranger's script does; return the losses."""
    losses = []
    for step in range(steps):
        _, loss = model(*batch(step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def watched_run(folder, steps=12, **settings):
    """Watch that script and return its folder and its losses."""
    model, optimizer = foreign()
    with workbench.watch(model, optimizer, folder, **settings):
        losses = loop(model, optimizer, steps)
    return RunFolder(folder), losses


def test_loop_of_a_stranger_leaves_a_run_folder(tmp_path):
    run, losses = watched_run(tmp_path / "runs" / "mine")
    record, lines = run.record(), read_jsonl(run.metrics)
    assert record["status"] == "finished" and record["origin"] == "watched"
    assert record["steps_done"] == 12 and record["learning_rates"] == [1e-2]
    assert record["parameters"] == VOCABULARY * CHANNELS + CHANNELS * CHANNELS + CHANNELS + 1
    assert record["training"] == {"steps": 12, "sequence_length": 5, "tokens_per_step": 15}
    assert [line["loss"] for line in lines] == losses
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["tokens"] for line in lines] == [15 * step for step in range(1, 13)]
    assert {"ms", "seconds", "learning_rate", "grad_norm"} <= set(lines[3])
    assert set(lines[9]["scalars"]) == {"gain.mean", "mix.bias.mean"}
    assert "scalars" not in lines[3]


def test_watched_run_is_listed_drawn_and_read(tmp_path):
    run, _ = watched_run(tmp_path / "runs" / "mine")
    (row,) = runs.list_runs(tmp_path / "runs")
    assert (row["status"], row["steps"], row["budget"]) == (
        "finished",
        12,
        "12 steps, 15 tokens each",
    )
    lines = read_jsonl(run.metrics)
    assert len(plots.training(lines).data) == 6  # loss and its median, rate, norm, two of updates
    assert readings.training(lines).startswith("After step 12 the training loss is")


def test_watched_training_is_the_same_to_the_bit(tmp_path):
    torch.manual_seed(3)
    model, optimizer = foreign()
    alone, state = loop(model, optimizer, 25), torch.get_rng_state()
    other, other_optimizer = foreign()
    with watch(other, other_optimizer, tmp_path / "mine", every=3, keep_every=2):
        beside = loop(other, other_optimizer, 25)
    assert alone == beside
    assert torch.equal(state, torch.get_rng_state())  # dropout drew from it, watching did not
    assert all(
        torch.equal(*pair) for pair in zip(model.parameters(), other.parameters(), strict=True)
    )
    assert not other._forward_hooks and not other_optimizer._optimizer_step_pre_hooks
    assert not other_optimizer._optimizer_step_post_hooks


def test_norms_and_updates_are_those_computed_by_hand(tmp_path):
    torch.manual_seed(0)
    model, rate = nn.Linear(6, 4), 0.1
    optimizer = torch.optim.SGD(
        [{"params": [model.weight]}, {"params": [model.bias], "lr": 0.2}], lr=rate
    )
    before, inputs = model.weight.detach().clone(), torch.randn(7, 6)
    with watch(model, optimizer, tmp_path / "mine") as watched:
        loss = model(inputs).square().sum()
        loss.backward()
        slopes = [p.grad.clone() for p in (model.weight, model.bias)]
        optimizer.step()
        watched.log(loss=loss, tries=3)
    (line,) = read_jsonl(watched.run.metrics)
    norms = [slope.square().sum().sqrt().item() for slope in slopes]
    assert line["grad_norm_by_group"] == pytest.approx(norms)
    assert line["grad_norm"] == pytest.approx((norms[0] ** 2 + norms[1] ** 2) ** 0.5)
    ratio = rate * norms[0] / before.norm().item()
    assert line["update_ratio_by_matrix"] == {"weight": pytest.approx(ratio, rel=1e-5)}
    assert line["update_ratio"] == pytest.approx(ratio, rel=1e-5)
    assert (line["loss"], line["tries"]) == (loss.item(), 3)


def test_large_matrix_is_sampled_without_bias(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(512, 1000, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    before = model.weight.detach().clone()
    with watch(model, optimizer, tmp_path / "mine") as watched:
        model.weight.grad = torch.randn_like(model.weight)
        optimizer.step()
        whole = ((model.weight.detach() - before).norm() / before.norm()).item()
    (line,) = read_jsonl(watched.run.metrics)
    assert line["update_ratio"] == pytest.approx(whole, rel=0.02)
    assert line["update_ratio"] != whole


@pytest.mark.parametrize(("dtype", "expected"), [(torch.bfloat16, 1.0), (torch.float32, 0.0)])
def test_updates_that_rounding_swallows_are_seen(tmp_path, dtype, expected):
    model = nn.Linear(4, 4, bias=False)
    model.weight = nn.Parameter(torch.ones(4, 4, dtype=dtype))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    with watch(model, optimizer, tmp_path / "mine") as watched:
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
    assert read_jsonl(watched.run.metrics)[0]["zero_update_share"] == expected


def test_clipped_steps_are_told_from_others(tmp_path):
    model, optimizer = foreign()
    with watch(model, optimizer, tmp_path / "mine") as watched:
        for step, most in enumerate([1e-3, 1e3, 1e-3]):
            model(*batch(step))[1].backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), most)
            optimizer.step()
            watched.log(grad_norm=norm)
            optimizer.zero_grad()
    lines = read_jsonl(watched.run.metrics)
    assert [line["clipped"] for line in lines] == [True, False, True]
    assert lines[0]["grad_norm_applied"] == pytest.approx(1e-3, rel=1e-3)
    assert lines[0]["grad_norm"] > 0.01


def test_values_logged_before_a_step_are_on_its_line(tmp_path):
    model, optimizer = foreign()
    with watch(model, optimizer, tmp_path / "mine") as watched:
        for step, most in enumerate([1e-3, 1e3, 1e-3]):
            model(*batch(step))[1].backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), most)
            watched.log(grad_norm=norm, before=step)
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                model(*batch(9))  # no training pass: what follows is still of this step
            watched.log(after=step)
    lines = read_jsonl(watched.run.metrics)
    assert [line["clipped"] for line in lines] == [True, False, True]
    assert [(line["before"], line["after"]) for line in lines] == [(0, 0), (1, 1), (2, 2)]


def test_values_of_a_step_that_never_came_are_on_no_line(tmp_path):
    model, optimizer = foreign()
    with watch(model, optimizer, tmp_path / "mine") as watched:
        watched.log(early=1)  # before any pass: of the first step
        loop(model, optimizer, 2)
        model(*batch(2))[1].backward()
        watched.log(grad_norm=1e6)
    first, last = read_jsonl(watched.run.metrics)
    assert first["early"] == 1 and "early" not in last
    assert "clipped" not in last and last["grad_norm"] < 1e3


STRANGE = [
    (complex(1, 2), "(1+2j)"),
    (torch.tensor(1 + 2j), "tensor(1.+2.j)"),
    (RunFolder, str(RunFolder)),
    ({(1, 2): 3}, "{(1, 2): 3}"),
    (torch.eye(1).to_sparse(), None),
    ([1.0, float("inf")], [1.0, None]),
    (torch.arange(2), [0, 1]),
]


@pytest.mark.parametrize("name", ["note", "grad_norm"])
@pytest.mark.parametrize(("value", "written"), STRANGE, ids=range(len(STRANGE)))
def test_value_that_json_cannot_hold_is_text(tmp_path, value, written, name):
    model, optimizer = foreign()
    with watch(model, optimizer, tmp_path / "mine") as watched:
        loop(model, optimizer, 1)
        watched.log(**{name: value})
        loop(model, optimizer, 1)
    assert watched.run.record()["status"] == "finished"
    lines = read_jsonl(watched.run.metrics)
    assert len(lines) == 2 and "clipped" not in lines[0]
    assert lines[0][name] == (written or str(value))


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (None, "failed", "RuntimeError: disk full"),
        (ZeroDivisionError("mine"), "failed", "ZeroDivisionError: mine"),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt"),
    ],
)
def test_folder_that_cannot_be_finished_ends_with_a_status(
    tmp_path, monkeypatch, error, status, reason
):
    def full(*_):
        raise RuntimeError("disk full")

    model, optimizer = foreign()
    with (
        pytest.raises(RuntimeError, match="disk full"),
        watch(model, optimizer, tmp_path / "mine") as watched,
    ):
        loop(model, optimizer, 2)
        monkeypatch.setitem(watch.__init__.__globals__, "save_weights", full)
        if error:
            raise error
    record = watched.run.record()
    assert (record["status"], record["steps_done"]) == (status, 2)
    assert record["reason"].startswith(reason)
    assert not model._forward_hooks


def test_gradients_of_a_closure_are_those_it_left(tmp_path):
    torch.manual_seed(0)
    inputs = torch.randn(7, 6)
    for number, kind in enumerate((torch.optim.SGD, torch.optim.LBFGS)):
        model = nn.Linear(6, 4)
        optimizer, slopes = kind(model.parameters(), lr=1e-2), []

        def closure():
            optimizer.zero_grad()  # noqa: B023
            loss = model(inputs).square().sum()  # noqa: B023
            loss.backward()
            slopes.append([p.grad.clone() for p in model.parameters()])  # noqa: B023
            watched.log(inside=len(slopes))  # noqa: B023
            return loss

        before = model.weight.detach().clone()
        with watch(model, optimizer, tmp_path / f"mine{number}") as watched:
            optimizer.step(closure)
            change = (model.weight.detach() - before).norm() / before.norm()
            optimizer.step(closure)
        first, second = read_jsonl(watched.run.metrics)
        used = [slopes[line["inside"] - 1] for line in (first, second)]
        norms = [sum(float(e.square().sum()) for e in each) ** 0.5 for each in used]
        assert [first["grad_norm"], second["grad_norm"]] == pytest.approx(norms, rel=1e-5)
        assert min(norms) > 0
        assert first["update_ratio_by_matrix"] == {"weight": pytest.approx(change.item(), rel=1e-5)}


def test_optimizer_of_another_model_is_refused_at_once(tmp_path):
    model, optimizer = foreign()
    _, other = foreign(seed=1)
    for odd in (other, [optimizer, other]):
        with pytest.raises(InputError, match="none of its parameters are the model's"):
            watch(model, odd, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    part = torch.optim.SGD([model.gain, nn.Parameter(torch.ones(1))], lr=0.1)
    watch(model, part, tmp_path / "mine")


def test_micro_batches_are_one_step_and_evaluation_is_none(tmp_path):
    model, optimizer = foreign()
    with watch(model, optimizer, tmp_path / "mine") as watched:
        parts = [model(*batch(part))[1] for part in range(4)]
        (sum(parts) / 4).backward()
        with torch.no_grad():
            model(*batch(9, rows=100))
        model.eval()(*batch(10, rows=100))
        optimizer.step()
    (line,) = read_jsonl(watched.run.metrics)
    assert line["tokens"] == 4 * 15
    assert line["loss"] == pytest.approx(sum(part.item() for part in parts) / 4)


def test_several_optimizers_make_one_step(tmp_path):
    model, _ = foreign()
    first = torch.optim.SGD([model.embedding.weight], lr=0.5)
    second = torch.optim.Adam([model.mix.weight, model.mix.bias], lr=0.25)
    with watch(model, [first, second], tmp_path / "mine") as watched:
        for step in range(3):
            model(*batch(step))[1].backward()
            for each in (first, second):
                each.step()
                each.zero_grad()
    lines = read_jsonl(watched.run.metrics)
    assert [len(line["grad_norm_by_group"]) for line in lines] == [2, 2, 2]
    assert all(min(line["grad_norm_by_group"]) > 0 for line in lines)
    assert watched.run.record()["learning_rates"] == [0.5, 0.25]


def test_loss_that_is_not_finite_is_null_and_named_and_stops_nothing(tmp_path):
    model, optimizer = foreign()
    with watch(model, optimizer, tmp_path / "mine") as watched:
        loop(model, optimizer, 3)
        with torch.no_grad():
            model.mix.weight[0, 0] = torch.nan
        loop(model, optimizer, 2)
    text = watched.run.metrics.read_text(encoding="utf-8")
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert len(lines) == 5 and "not_finite" not in lines[2]
    assert lines[3]["loss"] is None and {"loss", "grad_norm_applied"} <= set(lines[3]["not_finite"])
    assert lines[3]["first_not_finite"].startswith("weight ")
    assert readings.training(lines).startswith("After step 3")  # the last that is known


@pytest.mark.parametrize(
    ("error", "status"), [(ZeroDivisionError("mine"), "failed"), (KeyboardInterrupt(), "stopped")]
)
def test_exception_passes_through_and_is_recorded(tmp_path, error, status):
    model, optimizer = foreign()
    with pytest.raises(type(error)), watch(model, optimizer, tmp_path / "mine") as watched:
        loop(model, optimizer, 4)
        raise error
    record = watched.run.record()
    assert (record["status"], record["steps_done"]) == (status, 4)
    assert record["reason"].startswith(type(error).__name__)
    assert len(read_jsonl(watched.run.metrics)) == 4
    assert len(list(watched.run.checkpoints.iterdir())) == 2  # the start, and where it ended
    assert not model._forward_hooks


def test_optimizer_that_raises_leaves_whole_lines(tmp_path):
    model, optimizer = foreign()
    with pytest.raises(TypeError), watch(model, optimizer, tmp_path / "mine") as watched:
        loop(model, optimizer, 2)
        model(*batch(2))[1].backward()
        optimizer.param_groups[0]["betas"] = None
        optimizer.step()
    assert [line["step"] for line in read_jsonl(watched.run.metrics)] == [1, 2]


KILLED = """
import os, sys
import workbench
assert "torch" not in sys.modules and "numpy" not in sys.modules
from test_watch import batch, foreign, loop
model, optimizer = foreign()
with workbench.watch(model, optimizer, sys.argv[1]):
    loop(model, optimizer, 5)
    os.kill(os.getpid(), 9)
"""


def test_killed_script_leaves_a_readable_folder(tmp_path):
    here = os.pathsep.join([os.path.dirname(__file__), os.getcwd()])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "mine")],
        env={**os.environ, "PYTHONPATH": here},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    run = RunFolder(tmp_path / "mine")
    assert run.record()["status"] == "crashed"
    assert [line["step"] for line in read_jsonl(run.metrics)] == [1, 2, 3, 4]


@settings(max_examples=15)
@given(steps=st.integers(0, 300), keep_every=st.integers(1, 7))
def test_kept_checkpoints_are_few_and_spread_evenly(tmp_path_factory, steps, keep_every):
    folder = tmp_path_factory.mktemp("kept") / "mine"
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, folder, keep_every=keep_every):
        for _ in range(steps):
            optimizer.step()
    kept = sorted(int(path.stem[5:]) for path in (folder / "checkpoints").iterdir())
    assert kept[0] == 0 and kept[-1] == steps
    assert len(kept) <= 12
    assert len(kept) >= min(11, steps // keep_every)
    gaps = [later - earlier for earlier, later in pairwise(kept)][:-1]
    assert not gaps or max(gaps) <= 2 * min(gaps)


def test_tied_weight_is_kept_once_and_loads_again(tmp_path):
    run, _ = watched_run(tmp_path / "mine")
    path = run.checkpoints / "step-000012.safetensors"
    assert len(load_file(path)) == 4
    again, _ = foreign(seed=1)
    load_model(again, str(path))
    assert again.head.weight is again.embedding.weight
    model, optimizer = foreign()
    loop(model, optimizer, 12)
    assert torch.equal(again.mix.weight, model.mix.weight)


@pytest.fixture
def watched_network(tmp_path, tiny_data):
    """Train our own network in a loop of one's own, with and without its data."""

    def make(**settings):
        network = new_network(preset("demo", n_layer=2, d_model=16, vocab_size=257), seed=0)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
        ids = torch.from_numpy(tiny_data.train.ids[: 4 * 17].astype("int64")).view(4, 17)
        with watch(network, optimizer, tmp_path / "own", keep_every=2, **settings) as watched:
            for _ in range(4):
                loss = next_token_loss(network, ids[:, :-1], ids[:, 1:]) / 64
                loss.backward()
                optimizer.step()
                watched.log(loss=loss, validation_bits_per_byte=5.0)
                optimizer.zero_grad()
        return watched.run, network

    return make


def test_network_with_its_data_opens_in_every_probe(watched_network, tiny_data):
    run, network = watched_network(corpus=tiny_data)
    opened = open_run(run.path)
    assert run.record()["reason"] == "" and opened.sequence_length == 16
    assert sorted(opened.checkpoints()) == [0, 2, 4]
    assert torch.equal(opened.at(4).tok_emb.weight, network.tok_emb.weight)
    found = diagnostics.diagnose(opened, tiny_data, tokens=200, only=["effective_rank", "residual"])
    assert found["effective_rank"].step.values.tolist() == [0, 2, 4]
    assert "blocks.0.attn.q_gain.0" in read_jsonl(run.metrics)[0]["scalars"]


def test_run_that_cannot_be_rebuilt_says_where_to_look(watched_network):
    run, _ = watched_network()
    with pytest.raises(InputError, match="watched without its corpus") as refused:
        open_run(run.path)
    remedy = refused.value.remedy
    assert "takes a Network" in remedy and "foreign.adapt(m) of a transformers model" in remedy
    assert remedy.endswith("in a format that `import` reads.")


def test_taken_name_is_refused_before_anything_is_hooked(tmp_path):
    watched_run(tmp_path / "mine", steps=1)
    model, optimizer = foreign()
    with pytest.raises(InputError, match="not yet taken"):
        watch(model, optimizer, tmp_path / "mine")
    assert not model._forward_hooks
    with watch(model, optimizer, tmp_path / "mine", replace=True):
        pass


def test_unknown_entrance_is_no_attribute():
    with pytest.raises(AttributeError, match="watched"):
        _ = workbench.watched
