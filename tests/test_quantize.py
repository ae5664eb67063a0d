"""The verbs about artifacts: one is made by its notebook, judged again, and listed."""

import json
import shutil

import nbformat
import pytest

from workbench import quantization
from workbench.__main__ import main
from workbench.folder import find_run


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantize") / "small"
    shutil.copytree(tiny_run.path, folder)
    return find_run(folder)


@pytest.fixture(scope="module")
def quantized(run):
    asked = {"bytes": "9000", "rows": "30", "artifact": "tiny"}
    pairs = [word for key, value in asked.items() for word in ("-p", key, value)]
    assert main(["quantize", str(run.path), *pairs]) == 0
    return run.record()["artifacts"]["tiny"]


def test_the_artifact_keeps_its_budget_and_its_notebook_says_how(run, quantized):
    size = (run.path / "artifacts" / "tiny.wba").stat().st_size
    assert quantized["bytes"] == size <= 9000
    assert quantized["wanted"] == {"bytes": 9000} and quantized["rows"] == 30
    assert quantized["bits_per_byte"] > 0 and "9" in quantized["verdict"]
    assert (run.path / "run.json").stat().st_size < 10_000
    done = nbformat.read(run.path / "quantize.ipynb", as_version=4)
    assert all(cell.execution_count for cell in done.cells if cell.cell_type == "code")


def test_evaluate_reads_the_file_again(run, quantized, capsys):
    capsys.readouterr()
    assert main(["evaluate", str(run.path), "--artifact", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bits_per_byte"] == quantized["bits_per_byte"]
    assert found["artifact_bytes"] == quantized["bytes"]
    assert main(["evaluate", str(run.path), "--format", "json"]) == 0
    own = json.loads(capsys.readouterr().out)
    assert own["artifact_bytes"] is None and own["bits_per_byte"] != found["bits_per_byte"]
    assert main(["evaluate", str(run.path), "--artifact", "tiny"]) == 0
    assert f"{quantized['bytes']:,} bytes" in capsys.readouterr().out


def test_a_budget_that_cannot_be_is_one_line(run, quantized, capsys):
    capsys.readouterr()
    assert main(["quantize", str(run.path), "-p", "bytes", "300", "-p", "rows", "4"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "at least" in said.err
    assert run.record()["artifacts"] == {"tiny": quantized}
    assert main(["evaluate", str(run.path), "--artifact", "tinny"]) == 2
    assert "tiny" in capsys.readouterr().err


def test_without_data_an_artifact_still_opens(run, quantized):
    network, tensors = quantization.open_artifact(run.path / "artifact.wba")
    assert network.config.vocab_size == 257 and set(tensors) == set(network.state_dict())
