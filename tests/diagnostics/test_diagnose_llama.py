"""Diagnoses of networks of other families: what applies runs, the rest says why it does not."""

import numpy as np
import pytest
import torch

from workbench import readings
from workbench.diagnostics import components, diagnose, diagnostics, explain
from workbench.diagnostics.branch import states_at
from workbench.diagnostics.sample import sample
from workbench.model import new_network, preset
from workbench.text.world import Record

ABSENT = {"mixing", "quantization", "routing_audit", "value_residual"}


def network(family, **fields):
    config = preset(family, n_layer=2, d_model=16, vocab_size=257, feedforward_width=24, **fields)
    made = new_network(config, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return made.eval()


@pytest.mark.parametrize(
    ("family", "fields", "absent"),
    [
        ("llama", {}, ABSENT),
        ("qwen2", {"tie_embeddings": False}, ABSENT | {"role_conflict"}),
        (
            "qwen3",
            {"value_residual": True, "head_width": 6, "output_bias": True},
            {"quantization", "routing_audit"},
        ),
    ],
)
def test_a_diagnosis_runs_to_the_end(family, fields, absent, tiny_data):
    model = network(family, **fields)
    found = diagnose(model, tiny_data)
    assert diagnostics().keys() - found.keys() == absent
    assert found["self_test"].passed.all()
    given = sample(model, tiny_data)
    assert all(diagnostics()[name].lacks(given) for name in absent)
    assert "softcap_token_share" not in found["residual"], "what is not there is not measured"
    assert "softcap" not in readings.residual(found["residual"])
    roles = set(found["effective_rank"].role.values.tolist())
    assert {"feedforward_gate", "feedforward_in", "feedforward_out"} <= roles


def test_the_lens_at_the_last_visit_is_the_model(tiny_data, monkeypatch):
    monkeypatch.setattr("workbench.diagnostics.logit_lens.EVERY", 1)
    model = network("llama")  # its final norm has weights of both signs
    found = diagnose(model, tiny_data, only=["logit_lens"])["logit_lens"]
    table = sample(model, tiny_data).table
    assert found.attrs["tokens"] == table.sizes["token"]
    assert float(found.loss[-1]) == pytest.approx(float(table.nll.mean()), rel=1e-5)


def test_writes_add_up_to_the_margin_under_a_weighted_norm():
    model = network("llama")
    contexts = ((1, 5, 2), (3, 3, 8, 1, 9), (7,), (4, 11, 6))
    records = [
        Record(id=f"r{n}", prompt="", target="p", profile="x", source="s", fact=f"f{n}")
        for n in range(len(contexts))
    ]
    pieces = [f"p{n}" for n in range(257)]
    targets = np.ones(len(contexts), dtype=np.int64)
    states = states_at(model, records=records, contexts=contexts, targets=targets, pieces=pieces)
    margins = explain(model, states, pieces, reference=(states.hidden.mean(axis=0), "themselves"))
    found = components(model, states, margins)
    assert found.attrs["worst_residual"] < 1e-4 * found.attrs["logit_range"]
    np.testing.assert_allclose(states.logits, states.scores)


def test_panels_of_a_gated_network_draw(tmp_path, monkeypatch, tiny_data):
    """A role that activations do not have, and no value residual: both stopped a panel once."""
    from workbench import explore
    from workbench.diagnostics import diagnose, save_diagnosis
    from workbench.evaluation import open_run
    from workbench.folder import InputError
    from workbench.result import open_tree, provenance
    from workbench.training import begin, train, train_config

    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    steps = {"steps": 2, "tokens_per_step": 64, "sequence_length": 16, "micro_batches": 1}
    config = train_config(optimizer={}, device="cpu", warmdown_steps=1, **steps)
    shape = {"n_layer": 2, "d_model": 16, "vocab_size": 257}
    for name, network in (
        ("llama", new_network(preset("llama", **shape), seed=0)),
        ("golf", new_network(preset("baseline", n_head=4, n_kv_head=2, **shape), seed=0)),
    ):
        train(network, tiny_data, config, begin(name, network, tiny_data, config))
    panel = explore.effective_rank("llama")
    assert all(view.figure.data for view in panel.views)
    (mixing,) = explore.value_residual("golf").views
    assert mixing.plot == "mixing"
    with pytest.raises(InputError, match="no value residual|no learned"):
        explore.value_residual("llama")
    run = open_run("llama")
    path = save_diagnosis(run, diagnose(run, only=["self_test"]))
    absent = provenance(open_tree(path))["absent"]
    assert set(absent) >= {"value_residual", "mixing", "routing_audit"} and all(absent.values())
