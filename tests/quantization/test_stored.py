"""Artifacts of a run: made, judged by another half, opened in the run's place."""

import json
import shutil

import numpy as np
import pytest

from workbench import quantization, runs
from workbench.evaluation import bits_per_byte, open_run, token_table
from workbench.folder import InputError
from workbench.quantization import Codes, Judge, evaluate_artifact, keep_artifact, open_quantized


@pytest.fixture(scope="module")
def opened(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    shutil.copytree(tiny_run.path, folder)
    return open_run(folder)


@pytest.fixture(scope="module")
def quantizer(opened):
    rows = quantization.calibration_rows(opened, n_row=40)
    return quantization.quantizer(opened.model, *rows)


@pytest.fixture(scope="module")
def kept(opened, quantizer):
    tensors = quantizer.codes(0.01)
    report = Judge(opened).report(quantization.with_values(opened.model, tensors))
    path, account = keep_artifact(opened, "small", tensors, made=report)
    return path, account, tensors, report


def test_the_artifact_answers_in_place_of_the_run(opened, kept):
    path, account, tensors, _ = kept
    assert path.read_bytes() == (opened.folder.path / "artifact.wba").read_bytes()
    assert sum(account.values()) == path.stat().st_size
    network = open_quantized(opened, "small").model
    own = opened.model.state_dict()
    for name, value in network.state_dict().items():
        stored = tensors[name]
        assert np.array_equal(value, stored.values() if isinstance(stored, Codes) else stored)
    assert any(not np.array_equal(own[n], v) for n, v in network.state_dict().items())


def test_its_score_is_that_of_its_weights_and_is_kept(opened, kept):
    summary, table = evaluate_artifact(opened)
    direct = token_table(
        open_quantized(opened).model,
        opened.data.validation,
        opened.tokenizer,
        sequence_length=opened.sequence_length,
    )
    assert summary["bits_per_byte"] == bits_per_byte(direct).bits_per_byte
    assert summary["artifact_bytes"] == kept[0].stat().st_size
    record = opened.folder.record()["artifacts"]["small"]
    assert record["bits_per_byte"] == summary["bits_per_byte"]
    assert (kept[0].parent / "small.tokens.nc").exists()
    (row,) = runs.list_runs(opened.folder.path.parent)
    assert row["artifact_bytes"] == summary["artifact_bytes"]
    assert row["bits_per_byte_quantized"] == summary["bits_per_byte"]
    said = quantization.verdict(opened, "small")
    assert f"{summary['artifact_bytes']:,} bytes, {summary['bits_per_byte']:.4f}" in said
    assert opened.folder.record()["artifacts"]["small"]["verdict"] == said
    json.dumps(opened.folder.record(), allow_nan=False)


def test_halves_report_what_each_half_says(opened, kept):
    judge, report = Judge(opened), kept[3]
    model = open_quantized(opened).model

    def score(network, half):
        cut = {"sequence_length": opened.sequence_length}
        return bits_per_byte(token_table(network, half, opened.tokenizer, **cut)).bits_per_byte

    gaps = [score(model, half) - score(opened.model, half) for half in judge.halves]
    assert report["gap_chosen_by"] == pytest.approx(gaps[0], abs=1e-12)
    assert report["gap"] == pytest.approx(gaps[1], abs=1e-12)
    assert report["gap_standard_error"] > 0
    same = judge.report(opened.model)
    assert same["gap"] == 0 and same["gap_standard_error"] == 0


def test_every_byte_is_laid_out(kept):
    _, account, tensors, _ = kept
    table = quantization.account_table(tensors, account)
    assert int(table.bytes.sum()) == kept[0].stat().st_size
    here = table.sel(part="blocks.0.mlp.fc.weight")
    codes = tensors["blocks.0.mlp.fc.weight"].codes
    assert float(here.zero_share) == pytest.approx(float((codes == 0).sum()) / codes.numel())
    assert float(here.bits_per_weight) == 8 * account["blocks.0.mlp.fc.weight"] / codes.numel()
    assert np.isnan(table.sel(part="header").weights)


def test_what_is_not_there_is_said(opened, kept, tiny_run):
    with pytest.raises(InputError, match="small"):
        open_quantized(opened, "smal")
    with pytest.raises(InputError, match="workbench quantize"):
        open_quantized(open_run(tiny_run.path))
    with pytest.raises(InputError, match="training or own"):
        quantization.calibration_rows(opened, calibration="trainin")
    rows, _ = quantization.calibration_rows(opened, calibration="own", n_row=3)
    assert rows.shape == (3, opened.sequence_length)
