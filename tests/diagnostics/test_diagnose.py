import dataclasses
import shutil
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from tiny_runs import trained

from workbench import result
from workbench.diagnostics import diagnose, diagnostics, sample, save_diagnosis, token_loss
from workbench.diagnostics import effective_rank as effective_rank_of
from workbench.diagnostics.prediction import text_states
from workbench.evaluation import bits_per_byte, open_run, token_table
from workbench.folder import InputError
from workbench.model import load_model, new_network, preset, save_model
from workbench.text import TOKEN_CLASSES, open_data

ON_TEXT = [name for name in diagnostics() if name not in ("routing_audit", "quantization")]


@pytest.fixture(scope="module")
def on_text(tiny_run):
    """The run on text, opened, with every diagnostic that applies to it."""
    run = open_run(tiny_run.path)
    return run, diagnose(run)


@pytest.fixture(scope="module")
def on_world():
    """A run on the closed world: two updates, no value residual, no kept checkpoints."""
    folder = trained("diagnosed-world", open_data("closed-world"), steps=2, value_residual=None)
    run = open_run(folder.path)
    return run, diagnose(run)


@pytest.fixture
def copied(tiny_run, tmp_path):
    """A copy of the run on text that a test may write to."""
    return open_run(shutil.copytree(tiny_run.path, tmp_path / "copied"))


def hashes(run):
    return {path: path.read_bytes() for path in run.folder.path.rglob("*") if path.is_file()}


def test_every_diagnostic_that_applies_is_there(on_text, on_world):
    assert list(on_text[1]) == ON_TEXT
    absent = ("value_residual", "quantization")
    assert list(on_world[1]) == [name for name in diagnostics() if name not in absent]


@pytest.mark.parametrize("which", ["on_text", "on_world"])
def test_every_result_keeps_the_conventions_and_survives_its_file(which, request, tmp_path):
    run, groups = request.getfixturevalue(which)
    for group in groups.values():
        result.check(group)
        assert set(group.dims) <= set(result.DIMS)
    result.save(groups, tmp_path / "saved.nc", provenance=run.provenance())
    tree = result.open_tree(tmp_path / "saved.nc")
    assert set(tree.children) == set(groups)
    assert result.provenance(tree) == run.provenance()
    for name, group in groups.items():
        xr.testing.assert_identical(tree[name].to_dataset(), group)


def test_the_same_run_gives_the_same_results(on_text):
    run, groups = on_text
    again = diagnose(open_run(run.folder.path))
    for name, group in groups.items():
        xr.testing.assert_identical(again[name], group)


@pytest.mark.parametrize("which", ["on_text", "on_world"])
def test_probing_changes_neither_model_nor_folder(which, request):
    run, _ = request.getfixturevalue(which)
    before, files = {k: v.clone() for k, v in run.model.state_dict().items()}, hashes(run)
    diagnose(run, tokens=64)
    assert all(torch.equal(run.model.state_dict()[name], before[name]) for name in before)
    assert all(p.grad is None and p.requires_grad for p in run.model.parameters())
    assert run.model.tap.__name__ == "untouched"
    assert hashes(run) == files


def test_values_agree_with_each_diagnostic_on_its_own(on_text):
    run, groups = on_text
    table = token_table(
        run.model, run.data.validation, run.tokenizer, sequence_length=run.sequence_length, batch=3
    )
    parts = token_loss(table)
    for name in parts.data_vars:
        np.testing.assert_allclose(groups["token_loss"][name], parts[name], rtol=1e-5)
    total = float(groups["token_loss"].contribution.sum())
    assert total == pytest.approx(bits_per_byte(table).bits_per_byte, rel=1e-6)
    deciles = groups["token_loss"].tokens_by_decile.sum("decile")
    np.testing.assert_array_equal(deciles, parts.tokens)
    steps = list(run.checkpoints())
    spectra = groups["effective_rank"]
    assert spectra.step.values.tolist() == steps == groups["value_residual"].step.values.tolist()
    for step in (steps[0], steps[-1]):
        alone = effective_rank_of(run.at(step))
        np.testing.assert_array_equal(spectra.effective_rank.sel(step=step), alone.effective_rank)
    untrained = spectra.sel(step=0)
    writes = np.isin(untrained.role, ["attention_out", "feedforward_out"])
    assert np.isnan(untrained.effective_rank_ratio.values[writes]).all()
    assert np.isfinite(spectra.isel(step=-1).effective_rank_ratio).all()
    alpha = run.model.value_residual.alpha.detach()
    np.testing.assert_allclose(groups["value_residual"].alpha[-1, 1:], alpha)
    assert groups["self_test"].passed.all()


def test_untrained_weights_are_those_without_kept_checkpoints(on_world):
    run, groups = on_world
    spectra = groups["effective_rank"]
    assert "step" not in spectra.dims
    np.testing.assert_array_equal(
        spectra.effective_rank, effective_rank_of(run.model).effective_rank
    )


def test_predictions_of_text_have_context_and_the_class_of_their_target(on_text):
    run, _ = on_text
    states = text_states(sample(run), n_record=20)
    assert len(states.records) == 20 and len({each.id for each in states.records}) == 20
    assert {each.profile for each in states.records} <= set(TOKEN_CLASSES)
    ids, length = run.data.validation.ids, run.sequence_length
    for record in states.records:
        _, row, _, position = record.id.split()
        assert int(position) >= min(16, length - 1)
        target = ids[int(row) * length + int(position) + 1]
        assert record.target == run.tokenizer.pieces[target]


def test_closed_world_is_judged_profile_by_profile(on_world):
    run, groups = on_world
    world = run.data.corpus.world
    audit, prior = groups["routing_audit"], groups["logit_prior"]
    assert list(audit.profile.values) == list(world.profiles)
    held_out = set(audit.profile.values[audit.held_out.values])
    assert held_out == set(world.held_out)
    assert prior.sizes["record"] == sum(map(len, world.profiles.values()))
    assert int(audit.records.sum()) == prior.sizes["record"]


def test_only_measures_what_was_asked_for(on_text):
    run, groups = on_text
    seen = []
    found = diagnose(
        run, only=["token_loss", "self_test"], watch=lambda name, done: seen.append(name)
    )
    assert list(found) == ["self_test", "token_loss"], "what is cheap to trust comes first"
    assert list(dict.fromkeys(seen)) == ["self_test", "forward pass"]
    xr.testing.assert_identical(found["token_loss"], groups["token_loss"])


def test_tokens_limits_what_is_scored(on_text):
    run, groups = on_text
    found = diagnose(run, only=["token_loss"], tokens=50)["token_loss"]
    assert float(found.tokens.sum()) == 50 // run.sequence_length * run.sequence_length
    assert float(groups["token_loss"].tokens.sum()) > 50


@pytest.mark.parametrize(
    ("which", "only", "words"),
    [
        ("on_text", "token_lss", "token_loss"),
        ("on_text", "routing_audit", "no profiles"),
        ("on_world", "value_residual", "no value residual"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_reason(which, only, words, request):
    run, _ = request.getfixturevalue(which)
    seen = []
    with pytest.raises(InputError, match=words):
        diagnose(run, only=["self_test", only], watch=lambda name, done: seen.append(name))
    assert seen == []


def test_one_block_has_no_earlier_value(on_text):
    run, _ = on_text
    shape = {"n_layer": 1, "n_head": 2, "n_kv_head": 1, "d_model": 16, "vocab_size": 257}
    single = dataclasses.replace(run, model=new_network(preset("demo", **shape), seed=0).eval())
    with pytest.raises(InputError, match="no earlier value"):
        diagnose(single, only=["value_residual"])


def test_diagnosis_keeps_groups_of_the_same_data_alone(copied, tmp_path):
    probe = partial(diagnose, copied)
    path = save_diagnosis(copied, probe(only=["token_loss"]))
    first = result.open_tree(path)["token_loss"].to_dataset()
    save_diagnosis(copied, probe(only=["effective_rank"]))
    tree = result.open_tree(path)
    assert set(tree.children) == {"token_loss", "effective_rank"}
    xr.testing.assert_identical(tree["token_loss"].to_dataset(), first)
    newer = probe(only=["token_loss"], tokens=32)
    save_diagnosis(copied, newer)
    assert result.open_tree(path)["token_loss"].to_dataset().identical(newer["token_loss"])

    other = tmp_path / "other.txt"
    other.write_text("bad cab\n\n" * 100 + "a fee\n\n" * 100, encoding="utf-8")
    elsewhere = probe(only=["token_loss"], corpus=str(other))
    beside = save_diagnosis(copied, elsewhere, corpus=str(other))
    assert beside.name == "diagnosis-other.nc"
    assert set(result.open_tree(path).children) == {"token_loss", "effective_rank"}
    tree = result.open_tree(beside)
    assert set(tree.children) == {"token_loss"}
    found = result.provenance(tree)
    assert found["measured_on"] == "other.txt"
    assert found["measured_corpus_hash"] != found["data"]["corpus_hash"]


def test_damaged_diagnosis_is_made_anew(copied):
    path = copied.folder.path / "diagnosis.nc"
    path.write_bytes(b"half a file")
    save_diagnosis(copied, diagnose(copied, only=["token_loss"]))
    assert set(result.open_tree(path).children) == {"token_loss"}


def test_a_run_stopped_between_checkpoints_is_judged_by_its_own_weights(copied):
    last = max(copied.checkpoints())
    copied.checkpoints()[last].unlink()
    found = diagnose(copied, only=["effective_rank", "mixing", "value_residual"])
    for group in found.values():
        assert group.step.values[-1] == copied.record["steps_done"] == last
    alone = effective_rank_of(copied.model)
    spectra = found["effective_rank"].effective_rank.sel(step=last)
    np.testing.assert_array_equal(spectra, alone.effective_rank)
    mix = found["value_residual"].alpha.isel(step=-1, visit=1)
    assert float(mix) == pytest.approx(float(copied.model.value_residual.alpha[0].detach()))


def test_history_ends_with_the_model_itself(on_text):
    run, _ = on_text
    whole = sample(run)
    steps = list(run.checkpoints())
    assert list(whole.history) == steps and len(whole.history) == len(steps)
    assert whole.history[steps[-1]] is run.model
    early = dataclasses.replace(whole, model=run.at(steps[1]), step=steps[1])
    assert list(early.history) == steps[:2]


def test_a_diagnosis_of_other_weights_is_not_kept(copied, monkeypatch):
    save_diagnosis(copied, diagnose(copied, only=["token_loss"]))
    path = copied.folder.path / "model.safetensors"
    model = load_model(copied.folder.path)
    with torch.no_grad():
        model.tok_emb.weight.mul_(2)
    save_model(model, path.parent)
    changed = open_run(copied.folder.path)
    written = save_diagnosis(changed, diagnose(changed, only=["effective_rank"]))
    assert set(result.open_tree(written).children) == {"effective_rank"}
