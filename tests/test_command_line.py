import json
import random
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from in_process import execute_notebook
from safetensors.torch import load_file, save_file

from workbench import execution
from workbench.__main__ import EXPERIMENTS, main
from workbench.folder import InputError, find_run, runs_root
from workbench.result import open_tree

WORDS = "the cat sat on a mat and saw 12 birds, then slept near old trees".split()
TINY = {
    "tokenizer": "bytes",
    "model": "{n_layer: 2, d_model: 32, n_head: 2, n_kv_head: 1}",
    "steps": "6",
    "sequence_length": "32",
    "tokens_per_step": "256",
    "warmdown_steps": "2",
    "threads": "1",
}
EVALUATE_KEYS = {
    *("bits_per_byte", "standard_error", "loss_nat", "tokens", "bytes", "protocol", "context"),
    *("corpus_hash", "tokenizer_hash", "artifact_bytes", "by_class"),
}
RUNS_KEYS = {
    *("name", "status", "parent", "bits_per_byte", "bits_per_byte_quantized", "protocol"),
    *("artifact_bytes", "steps", "seed"),
}


def train(name, **parameters):
    """Call ``train``; a parameter that is None is left out."""
    pairs = {"corpus": "text.txt", **TINY, **parameters}
    flat = [part for key, text in pairs.items() if text is not None for part in ("-p", key, text)]
    return main(["train", "--name", name, *flat])


def paragraphs(count):
    draw = random.Random(count)
    return "\n\n".join(" ".join(draw.choices(WORDS, k=30)) + "." for _ in range(count))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder that the caller works in, with a corpus named by its relative path."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "text.txt").write_text(paragraphs(120), encoding="utf-8")
    (folder / "other.txt").write_text(paragraphs(60), encoding="utf-8")
    (folder / "short.txt").write_text(paragraphs(2), encoding="utf-8")
    (folder / "uneven").mkdir()
    (folder / "uneven" / "train.txt").write_text(paragraphs(120), encoding="utf-8")
    (folder / "uneven" / "validation.txt").write_text("the cat sat.", encoding="utf-8")
    (folder / "latin.txt").write_bytes("caf\u00e9 ".encode("latin-1") * 500)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def trained(workplace):
    """A run that the command line trained and diagnosed."""
    assert train("cli-first") == 0
    assert main(["diagnose", "cli-first"]) == 0
    return find_run("cli-first")


@pytest.fixture
def in_process(monkeypatch):
    """Run the cells of a notebook here rather than in a kernel of its own, which takes seconds."""
    monkeypatch.setattr(execution.papermill, "execute_notebook", execute_notebook)


def one_line_error(capsys):
    """Return the only line that was written, which must be an error on stderr."""
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1 and shown.err.startswith("error: "), shown.err
    return shown.err


def test_training_leaves_a_whole_run(trained):
    record = trained.record()
    assert (record["status"], record["steps_done"], record["seed"]) == ("finished", 6, 1337)
    assert record["data"]["source"] == str(Path("text.txt").resolve())
    present = {path.name for path in trained.path.iterdir()}
    wanted = {"metrics.jsonl", "model.safetensors", "model.json", "tokenizer", "checkpoints"}
    assert wanted | {"run.json", "tokens.nc", "train.ipynb", "diagnosis.nc"} <= present
    assert (trained.path / "run.json").stat().st_size < 10_000
    assert not [name for name in present if name.startswith(".")]
    done = nbformat.read(trained.path / "train.ipynb", as_version=4)
    assert all(cell.execution_count for cell in done.cells if cell.cell_type == "code")
    (injected,) = (c for c in done.cells if "injected-parameters" in c.metadata.get("tags", []))
    assert 'name = "cli-first"' in injected.source


def test_evaluate_prints_one_json_object(trained, capsys):
    assert main(["evaluate", "cli-first", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) >= EVALUATE_KEYS
    assert found["protocol"] == "full" and found["context"] == 32
    assert found["artifact_bytes"] is None
    recorded = trained.record()["evaluation"]
    assert found | {"weights": trained.weights()} == recorded
    split = sum(part["tokens"] for part in found["by_class"].values())
    assert split == found["tokens"] == found["split_tokens"] // 32 * 32


def test_evaluate_by_another_protocol_or_corpus_is_not_recorded(trained, capsys):
    before = (trained.path / "run.json").read_bytes()
    assert main(["evaluate", "cli-first", "--protocol", "sliding:8", "--format", "json"]) == 0
    sliding = json.loads(capsys.readouterr().out)
    assert sliding["protocol"] == "sliding:8" and sliding["tokens"] == sliding["split_tokens"] - 1
    assert main(["evaluate", "cli-first", "--corpus", "other.txt", "--format", "json"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["corpus_hash"] != sliding["corpus_hash"]
    assert other["tokenizer_hash"] == sliding["tokenizer_hash"]
    assert (trained.path / "run.json").read_bytes() == before


def test_evaluate_in_words(trained, capsys):
    assert main(["evaluate", str(trained.path)]) == 0
    said = capsys.readouterr().out
    value = trained.record()["evaluation"]["bits_per_byte"]
    assert said.startswith(f"{value:.4f} bit/byte") and "word_start" in said


def test_diagnose_says_what_it_found(trained, capsys):
    before = open_tree(trained.path / "diagnosis.nc")
    assert main(["diagnose", "cli-first", "--only", "self_test,token_loss"]) == 0
    shown = capsys.readouterr()
    assert [line.split(":")[0] for line in shown.out.splitlines()] == ["self_test", "token_loss"]
    assert "All 10 self-tests passed." in shown.out
    assert str(trained.path / "diagnosis.nc") in shown.err
    after = open_tree(trained.path / "diagnosis.nc")
    assert set(after.children) == set(before.children)
    assert "value_residual" in after.children and "routing_audit" not in after.children


def test_diagnose_fails_when_a_self_test_does(trained, capsys, monkeypatch):
    from workbench.model import Network

    forward = Network.forward
    monkeypatch.setattr(
        Network, "forward", lambda self, ids: forward(self, ids) * (1 + ids.shape[1] / 100)
    )
    before = (trained.path / "diagnosis.nc").read_bytes()
    try:
        assert main(["diagnose", "cli-first", "--only", "self_test"]) == 1
    finally:
        (trained.path / "diagnosis.nc").write_bytes(before)
    assert "1 of 10 self-tests failed" in capsys.readouterr().out


def test_generate_continues_the_prompt(trained, capsys):
    said = []
    for extra in ([], [], ["--temperature", "1", "--top-k", "5", "--seed", "3"]):
        assert main(["generate", "cli-first", "--prompt", "the cat", "--tokens", "12", *extra]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and said[0].startswith("the cat") and len(said[0]) > 8


def test_report_is_written_where_it_is_asked_for(trained, workplace, capsys):
    assert main(["report", "cli-first", "--output", "pages/first.html"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "" and "pages/first.html" in shown.err
    assert "cli-first" in Path("pages/first.html").read_text(encoding="utf-8")
    assert main(["report", "cli-first", "--output", "pages"]) == 0
    assert Path("pages/report.html").exists()
    assert main(["report", "cli-first"]) == 0
    assert (trained.path / "report.html").exists()
    (trained.path / "report.html").unlink()


def test_runs_are_listed_with_their_parents(trained, in_process, capsys):
    arguments = {"parent": "cli-first", "steps": "2"}
    assert train("cli-child", **arguments) == 0
    capsys.readouterr()
    assert main(["runs", "--format", "json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert all(set(row) >= RUNS_KEYS for row in rows.values())
    child, parent = rows["cli-child"], rows["cli-first"]
    assert (child["parent"], child["steps"], child["status"]) == ("cli-first", 2, "finished")
    assert parent["bits_per_byte"] == find_run("cli-first").record()["evaluation"]["bits_per_byte"]
    assert main(["runs", "--tree"]) == 0
    tree = capsys.readouterr().out
    assert "\n  cli-child" in tree and tree.index("cli-first") < tree.index("cli-child")
    assert main(["runs", "--leaderboard"]) == 0
    assert "protocol full" in capsys.readouterr().out
    assert main(["runs", "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("name,status,parent,bits_per_byte")


def test_json_is_alone_on_stdout(trained):
    done = subprocess.run(
        [sys.executable, "-m", "workbench", "runs", "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "cli-first" in {row["name"] for row in json.loads(done.stdout)}


def test_failed_training_keeps_its_notebook_and_says_why(trained, in_process, capsys):
    growing = "{weight_decay: 1000.0}"  # times 39 in every update, until float32 ends
    assert train("cli-failed", optimizer=growing, steps="80") == 1
    assert "NonFiniteLoss: step" in capsys.readouterr().err
    run = find_run("cli-failed")
    assert run.record()["status"] == "failed" and "NonFiniteLoss" in run.record()["reason"]
    assert (run.path / "train.ipynb").exists()
    assert main(["evaluate", "cli-failed"]) == 2
    assert "status failed" in capsys.readouterr().err


def test_weights_that_are_broken_are_refused_before_a_folder_is_made(trained, in_process, capsys):
    weights = load_file(trained.path / "model.safetensors")
    weights["blocks.1.mlp.fc.weight"].fill_(torch.nan)
    save_file(weights, "broken.safetensors")
    assert train("cli-broken", initial_state="broken.safetensors") == 1
    shown = capsys.readouterr().err
    assert "NonFiniteLoss: step 1" in shown and "blocks.1.mlp.fc.weight" in shown
    with pytest.raises(InputError):
        find_run("cli-broken")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"corpus": "pyton-docs"}, "Nearest: python-docs"),
        ({"corpus": "missing.txt"}, "corpus 'missing.txt'"),
        ({"corpus": "latin.txt"}, "byte 0xE9"),
        ({"corpus": "short.txt"}, "tokens"),
        ({"corpus": "uneven"}, "validation split"),
        ({"preset": "demmo"}, "demo"),
        ({"model": "{n_layers: 2}"}, "n_layer"),
        ({"model": "{vocab_size: 100}"}, "at least the tokenizer's 257"),
        ({"model": "{d_model: 30, n_head: 4}"}, "does not divide"),
        ({"model": "{value_residual: {form: mul}}"}, "form must be one of"),
        ({"tokenizer": "missing.model"}, "missing.model"),
        ({"optimizer": "{matrx_lr: 1e-2}"}, "matrix_lr"),
        ({"optimizer": "{matrix_lr: fast}"}, "optimizer"),
        ({"tokens_per_step": "100"}, "a multiple of"),
        ({"dtype": "float16"}, "bfloat16"),
        ({"device": "cuda:9"}, "device"),
        ({"parent": "nobody"}, "run 'nobody'"),
        ({"initial_state": "text.txt"}, "text.txt"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(workplace, in_process, capsys, parameters, words):
    assert train("cli-bad", **parameters) == 2
    assert words in one_line_error(capsys)
    assert not (runs_root() / "cli-bad").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--name", "cli-bad", "-p", "stepz", "3"], "Nearest: steps"),
        (["train", "--name", "cli-bad", "-p", "steps", "many"], "expected int"),
        (["train", "--name", "../cli-bad"], "name '../cli-bad'"),
        (["train", "--name", "cli-first"], "--replace"),
        (["run", "missing.ipynb"], "missing.ipynb"),
        (["run", "text.txt"], "expected a notebook"),
        (["evaluate", "cli-frist"], "cli-first"),
        (["evaluate", "cli-first", "--protocol", "sliding:99"], "sliding:N"),
        (["evaluate", "cli-first", "--corpus", "nowhere"], "corpus 'nowhere'"),
        (["diagnose", "cli-first", "--only", "tokn_loss"], "token_loss"),
        (["diagnose", "cli-first", "--only", "routing_audit"], "no profiles"),
        (["generate", "cli-first", "--prompt", "a", "--tokens", "0"], "tokens >= 1"),
        (["report", "nobody"], "run 'nobody'"),
    ],
)
def test_bad_arguments_are_one_line(trained, capsys, arguments, words):
    capsys.readouterr()
    assert main(arguments) == 2
    assert words in one_line_error(capsys)
    assert not (runs_root() / "cli-bad").exists()


def test_a_name_may_be_given_as_a_parameter(workplace, in_process, capsys):
    flat = [part for pair in TINY.items() for part in ("-p", *pair)]
    arguments = ["-p", "corpus", "text.txt", "-p", "name", "cli-named", "-p", "steps", "1"]
    assert main(["train", *flat, *arguments]) == 0
    assert find_run("cli-named").record()["steps_done"] == 1
    assert main(["train", *flat, *arguments]) == 2
    assert main(["train", *flat, *arguments, "-p", "replace", "true"]) == 0


def test_runs_without_a_name_are_numbered(workplace, in_process):
    notebook = str(EXPERIMENTS / "train.ipynb")
    flat = [part for pair in TINY.items() for part in ("-p", *pair)]
    command = ["run", notebook, *flat, "-p", "corpus", "text.txt", "-p", "steps", "1"]
    before = {path.name for path in runs_root().glob("train-*")}
    assert main(command) == 0 and main(command) == 0
    made = sorted({path.name for path in runs_root().glob("train-*")} - before)
    assert len(made) == 2


def test_unknown_verbs_are_refused(capsys):
    for arguments in (["trian"], [], ["train", "-p", "steps"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert "usage: python -m workbench" in capsys.readouterr().err
