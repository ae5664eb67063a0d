"""Opened runs: the same numbers as the run was made with, or a refusal that says why."""

import json
import shutil

import numpy as np
import pytest
import torch
import xarray as xr

from workbench.evaluation import bits_per_byte, evaluate, open_run, save_evaluation, token_table
from workbench.folder import InputError, RunFolder, create_run, read_jsonl
from workbench.model import save_model, state
from workbench.result import open_tree, provenance
from workbench.text import TOKEN_CLASSES


@pytest.fixture
def own_run(tiny_run, tmp_path):
    """Copy the trained run, to be changed."""
    return RunFolder(shutil.copytree(tiny_run.path, tmp_path / "copy"))


def test_an_opened_run_is_the_run(tiny_run, tiny_data):
    opened = open_run(tiny_run.path)
    assert opened.sequence_length == 16 and not opened.model.training
    assert opened.tokenizer.hash == tiny_data.tokenizer.hash
    assert opened.data.identity() == tiny_data.identity()
    assert opened.data is opened.data, "opened once"
    assert open_run(tiny_run.name).folder.path == tiny_run.path
    assert set(opened.provenance()) >= {"name", "seed", "model", "training", "data"}
    json.dumps(opened.provenance(), allow_nan=False)


def test_kept_checkpoints_open_by_step(tiny_run):
    opened = open_run(tiny_run.path)
    assert list(opened.checkpoints()) == [0, 4, 8, 12]
    last, first = state(opened.at(12)), state(opened.at(0))
    assert all(torch.equal(t, last[name]) for name, t in state(opened.model).items())
    assert not first["blocks.0.attn.proj.weight"].any()


def test_evaluation_of_a_run(tiny_run, tiny_data):
    opened = open_run(tiny_run.path)
    seen = []
    summary, table = evaluate(opened, watch=seen.append)
    promised = (
        "bits_per_byte standard_error loss_nat tokens bytes protocol context corpus_hash "
        "tokenizer_hash artifact_bytes by_class documents split_tokens"
    )
    assert set(promised.split()) <= set(json.loads(json.dumps(summary, allow_nan=False)))
    expected = token_table(
        opened.model, tiny_data.validation, tiny_data.tokenizer, sequence_length=16
    )
    np.testing.assert_array_equal(table.nll, expected.nll)
    assert summary["bits_per_byte"] == bits_per_byte(expected).bits_per_byte
    logged = read_jsonl(tiny_run.metrics)[-1]["validation_bits_per_byte"]
    assert summary["bits_per_byte"] == pytest.approx(logged, rel=1e-6), "as training saw it last"
    assert summary["corpus_hash"] == table.attrs["corpus_hash"] == tiny_data.corpus.hash
    assert summary["artifact_bytes"] is None and seen[-1] == summary["tokens"]
    assert 0 < summary["standard_error"] < summary["bits_per_byte"]


def test_classes_are_a_partition(tiny_run):
    summary, table = evaluate(open_run(tiny_run.path), protocol="sliding:8")
    by_class = summary["by_class"]
    assert list(by_class) == [name for name in TOKEN_CLASSES if name in by_class]
    assert sum(part["tokens"] for part in by_class.values()) == summary["tokens"]
    total = sum(part["tokens"] * part["loss_nat"] for part in by_class.values())
    assert total == pytest.approx(float(table.nll.sum()))
    assert all(part["tokens"] > 0 for part in by_class.values()), "absent, never 0"


def test_a_limit_scores_the_beginning(tiny_run):
    opened = open_run(tiny_run.path)
    part, whole = (evaluate(opened, limit=limit)[1] for limit in (64, None))
    assert len(part.token) == 64
    xr.testing.assert_allclose(part.nll, whole.nll[:64], rtol=1e-4)


def test_another_corpus_under_the_same_tokenizer(tiny_run, tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("train", "validation"):
        (tmp_path / "other" / f"{name}.txt").write_text("a cab, a face, a bad decade.\n" * 3)
    opened = open_run(tiny_run.path)
    summary, _ = evaluate(opened, corpus=str(tmp_path / "other"))
    assert summary["corpus_hash"] != opened.data.corpus.hash
    assert summary["tokenizer_hash"] == opened.tokenizer.hash
    assert summary["standard_error"] is None, "one document"


def test_a_saved_evaluation_reads_back(own_run):
    opened = open_run(own_run.path)
    summary, table = evaluate(opened)
    save_evaluation(opened, summary, table)
    assert own_run.record()["evaluation"] == json.loads(json.dumps(summary)) | {
        "weights": own_run.weights()
    }
    assert own_run.record()["status"] == "finished", "the rest of the record stays"
    tree = open_tree(own_run.path / "tokens.nc")
    xr.testing.assert_identical(tree["tokens"].to_dataset(), table)
    assert provenance(tree)["data"]["corpus_hash"] == summary["corpus_hash"]
    assert not list(own_run.path.glob(".*")), "no scratch file is left"


def test_changed_text_is_refused(own_run, tmp_path):
    source = tmp_path / "text"
    shutil.copytree(own_run.record()["data"]["source"], source)
    own_run.update(data={**own_run.record()["data"], "source": str(source)})
    assert open_run(own_run.path).data.corpus.source == str(source)
    with (source / "train.jsonl").open("a") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(InputError, match="the corpus of this run"):
        evaluate(open_run(own_run.path))


def test_a_run_without_weights_is_refused(own_run, tmp_path):
    (own_run.path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        open_run(own_run.path)
    with pytest.raises(InputError, match="status planned"):
        open_run(create_run("fresh", root=tmp_path).path)
    with pytest.raises(InputError, match="none of that name"):
        open_run("no-such-run")


def test_a_wrong_protocol_is_refused(tiny_run):
    with pytest.raises(InputError, match="sliding:17"):
        evaluate(open_run(tiny_run.path), protocol="sliding:17")


def test_weights_that_changed_after_the_score_are_noticed(own_run):
    copy = own_run
    run = open_run(copy.path)
    summary, table = evaluate(run)
    assert not copy.is_stale(), "nothing was scored yet"
    save_evaluation(run, summary, table)
    assert not copy.is_stale()
    with torch.no_grad():
        run.model.blocks[0].mlp_scale.mul_(1.01)
    save_model(run.model, copy.path)
    assert copy.is_stale()
