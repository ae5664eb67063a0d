import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foreign_models import KINDS, foreign_model, plain_model
from repository import PROJECT
from safetensors.torch import load_model

from workbench import diagnostics, plots, readings, watch
from workbench.diagnostics import Trial, diagnose, sample
from workbench.diagnostics.diagnose import diagnostics as known_diagnostics
from workbench.evaluation import open_run
from workbench.folder import InputError, read_jsonl
from workbench.foreign import adapt

ALWAYS = {
    "quantization": "no artifact",
    "routing_audit": "the corpus has no profiles",
    "mixing": "no learned mixing scalars",
    "value_residual": "no value residual",
}
ABSENT = {
    "gpt2": ALWAYS,
    "llama": ALWAYS | {"role_conflict": "not tied"},
    "gpt_neox": ALWAYS | {"role_conflict": "not tied"},
    "gemma2": ALWAYS | {"attention": "this model has no site visit.0.query"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_diagnostic_runs_or_says_why_not(kind, tiny_data):
    adapter = adapt(foreign_model(kind))
    found = diagnose(adapter, tiny_data, tokens=100)
    assert set(found) == set(known_diagnostics()) - set(ABSENT[kind])
    assert bool(found["self_test"].passed.all())
    for name, reason in ABSENT[kind].items():
        with pytest.raises(InputError, match=reason):
            diagnose(adapter, tiny_data, tokens=100, only=[name])
    for name, dataset in found.items():
        if hasattr(plots, name):
            assert getattr(plots, name)(dataset).data
        if hasattr(readings, name):
            assert getattr(readings, name)(dataset)


def test_token_losses_average_to_the_models_own_loss(tiny_data):
    model = foreign_model("llama")
    given = sample(adapt(model), tiny_data, sequence_length=16)
    rows = torch.from_numpy(given.cut.inputs)
    labels = torch.from_numpy(given.cut.targets)
    with torch.no_grad():
        # The model shifts labels itself: hand it each row with its last target at the end.
        whole = torch.cat([rows, labels[:, -1:]], dim=1)
        loss = model(input_ids=whole, labels=whole).loss.item()
    assert float(given.table.nll.mean()) == pytest.approx(loss, rel=1e-5)


def test_planted_rank_one_is_seen_in_either_layout_and_its_twin_is_clear():
    for kind, layer in (("gpt2", "h.1.mlp.c_proj"), ("llama", "layers.1.mlp.down_proj")):
        model = foreign_model(kind)
        weight = model.base_model.get_submodule(layer).weight
        twin = diagnostics.effective_rank(adapt(model))
        with torch.no_grad():
            weight.copy_(
                torch.outer(torch.arange(1.0, len(weight) + 1), torch.ones(weight.shape[1]))
            )
        found = diagnostics.effective_rank(adapt(model))
        at = found.matrix == "block.1.feedforward_out"
        assert float(found.effective_rank[at].item()) == pytest.approx(1.0, abs=1e-3)
        assert float(twin.effective_rank[at].item()) > 10
        others = found.effective_rank[~at].values
        assert np.allclose(others, twin.effective_rank[~at].values)
        rows, columns = found.rows[at].item(), found.columns[at].item()
        assert (rows, columns) == (16, 64 if kind == "gpt2" else 24)


def test_planted_idle_feed_forward_costs_nothing_and_its_twin_does(tiny_data):
    model = foreign_model("gpt_neox")
    twin = diagnose(adapt(model), tiny_data, tokens=400, only=["ablation"])["ablation"]
    with torch.no_grad():
        for parameter in model.gpt_neox.layers[1].mlp.dense_4h_to_h.parameters():
            parameter.zero_()
    found = diagnose(adapt(model), tiny_data, tokens=400, only=["ablation"])["ablation"]
    place = {"visit": 1, "part": "feedforward"}
    assert float(found.zero_cost.sel(place)) == 0.0
    assert abs(float(twin.zero_cost.sel(place))) > 1e-3


def test_parameters_of_a_foreign_model_can_be_changed(tiny_data):
    model = foreign_model("gpt2")
    trial = Trial(model=adapt(model), rows=sample(adapt(model), tiny_data, sequence_length=16).rows)
    name = "network.transformer.h.0.mlp.c_fc.bias"
    before = model.transformer.h[0].mlp.c_fc.bias.detach().clone()
    cost = trial.cost(name, ["zero", 1.0]).cost.values
    assert cost[1] == 0.0 and cost[0] != 0.0
    assert torch.equal(before, model.transformer.h[0].mlp.c_fc.bias)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_ids_beyond_the_tokenizer_are_named_and_break_nothing(kind, tiny_data):
    adapter = adapt(foreign_model(kind, vocab_size=264))
    found = diagnose(adapter, tiny_data, tokens=100)
    assert set(found) == set(known_diagnostics()) - set(ABSENT[kind])
    given = sample(adapter, tiny_data)
    assert given.tokenizer.pieces[257:] == tuple(f"<unused {at}>" for at in range(257, 264))
    assert given.tokenizer.hash == tiny_data.tokenizer.hash
    assert tiny_data.tokenizer.vocab_size == 257


def test_context_is_what_the_model_knows_at_most(tiny_data):
    assert sample(adapt(foreign_model("gpt2")), tiny_data).sequence_length == 64
    assert sample(adapt(foreign_model("llama")), tiny_data).sequence_length == 256


PLAIN = {
    "fused": ALWAYS,
    "written": ALWAYS
    | {"role_conflict": "not tied", "attention": "this model has no site visit.0.query"},
}


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_model_is_watched_then_probed(kind, tiny_data, tmp_path):
    model = plain_model(kind).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = torch.from_numpy(tiny_data.train.ids[: 6 * 4 * 33].astype(np.int64)).view(6, 4, 33)
    with watch(model, optimizer, tmp_path / "mine") as watched:
        for batch in ids:
            _, loss = model(batch[:, :-1], batch[:, 1:])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    losses = [line["loss"] for line in read_jsonl(watched.run.metrics)]
    assert len(losses) == 6 and losses[-1] < losses[0]
    with pytest.raises(InputError, match="or of a plain one; safetensors.torch.load_model"):
        open_run(watched.run.path)

    again = plain_model(kind)
    load_model(again, watched.run.checkpoints / "step-000006.safetensors")
    adapter = adapt(again)
    found = diagnose(adapter, tiny_data, tokens=400)
    assert set(found) == set(known_diagnostics()) - set(PLAIN[kind])
    assert bool(found["self_test"].passed.all())
    for name, reason in PLAIN[kind].items():
        with pytest.raises(InputError, match=reason):
            diagnose(adapter, tiny_data, only=[name])
    for name, dataset in found.items():
        for part in (plots, readings):
            assert not hasattr(part, name) or getattr(part, name)(dataset)
    given = sample(adapter, tiny_data, tokens=400)
    rows, targets = torch.from_numpy(given.cut.inputs), torch.from_numpy(given.cut.targets)
    with torch.no_grad():
        loss = model.eval()(rows, targets)[1].item()
    assert float(given.table.nll.mean()) == pytest.approx(loss, rel=1e-5)
    _check_ablation(model, found["ablation"], given)


def _check_ablation(model, found, given):
    """Compare the cost of a silenced feed-forward with a model whose last matrix is zero."""
    rows = given.rows

    def nats_a_byte():
        logits = model(rows.inputs, rows.targets)[0]
        return F.cross_entropy(logits.flatten(0, 1), rows.targets.flatten(), reduction="sum")

    with torch.no_grad():
        before = nats_a_byte()
        for parameter in model.transformer["h"][1].mlp[2].parameters():
            parameter.zero_()
        cost = float(nats_a_byte() - before) / rows.bytes.sum() / np.log(2)
    place = {"visit": 1, "part": "feedforward"}
    assert float(found.zero_cost.sel(place)) == pytest.approx(cost, rel=1e-3, abs=1e-6)


def test_example_of_the_readme_runs(tmp_path, monkeypatch):
    page = (PROJECT / "README.md").read_text(encoding="utf-8")
    (code,) = [e for e in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "adapt(" in e]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("\n\n".join(f"A cab, no {n}.\n" * 9 for n in range(40)))
    model = plain_model().train()
    ids = torch.randint(0, 257, (2, 3, 9), generator=torch.Generator().manual_seed(0))
    names = {
        "model": model,
        "optimizer": torch.optim.AdamW(model.parameters()),
        "batches": [(each[:, :-1], each[:, 1:]) for each in ids],
    }
    assert 'tokenizer="tokenizer.json"' in code
    exec(code.replace("tokenizer.json", "bytes"), names)
    assert bool(names["groups"]["self_test"].passed.all())
    assert len(read_jsonl(tmp_path / "data/runs/mine/metrics.jsonl")) == 2
