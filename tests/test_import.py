"""Checkpoints from elsewhere become runs, and runs become checkpoints for elsewhere."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import execute_notebook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from workbench import execution, explore
from workbench.__main__ import main
from workbench.diagnostics import self_test
from workbench.evaluation import evaluate, open_run
from workbench.folder import PROJECT, InputError, find_run, read_jsonl, runs_root
from workbench.foreign import read_parameter_golf, write_huggingface
from workbench.foreign import write_parameter_golf as write
from workbench.model import new_network, preset, starting_point, state
from workbench.model.checkpoint import read_header
from workbench.text import open_data, train_tokenizer, write_shard
from workbench.training import TrainConfig, adopt, begin, compare_recorded, read_foreign, train

WORDS = "the cat sat on a mat and then slept near old trees by a wide grey river bank".split()
LOG = """\
model_params:{count}
train_batch_tokens:512 train_seq_len:32 iterations:2
seed:7
step:0/2 val_loss:6.1 val_bpb:4.1 train_time:0ms step_avg:0.00ms
step:1/2 train_loss:6.0 train_time:20ms step_avg:20.00ms
step:2/2 val_loss:6.0 val_bpb:{recorded:.4f} train_time:50ms step_avg:25.00ms
"""


@pytest.fixture(scope="module")
def golf(tmp_path_factory):
    """What an official run leaves: weights, shards, tokenizer, and a log that tells the truth."""
    draw = np.random.default_rng(0)
    documents = [" ".join(draw.choice(WORDS, 40)) for _ in range(60)]
    tokenizer = train_tokenizer(documents, vocab_size=300)
    folder = tmp_path_factory.mktemp("golf")
    (folder / "data").mkdir()
    tokenizer.save(folder / "data")
    for split, some in (("train", documents[:45]), ("val", documents[45:])):
        ids = np.concatenate([[tokenizer.bos, *tokenizer.encode(each)] for each in some])
        write_shard(folder / "data" / f"fineweb_{split}_000000.bin", ids)
    network = new_network(
        preset("baseline", n_layer=2, n_head=2, n_kv_head=1, d_model=32, vocab_size=300), seed=0
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(1))
    write(network, folder, embedding_dtype=torch.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(tmp_path_factory.mktemp("measured")))
        foreign = read_foreign(folder / "final_model.pt", sequence_length=32)
        run = adopt("a", foreign, open_data(foreign.corpus), path="a")
        score = evaluate(open_run(run.path))[0]["bits_per_byte"]
    count = sum(parameter.numel() for parameter in network.parameters())
    (folder / "train.log").write_text(LOG.format(count=count, recorded=score), encoding="utf-8")
    return folder


@pytest.fixture
def place(monkeypatch, tmp_path):
    """Give a data folder of its own, and run the cells of a notebook in this process."""
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(execution.papermill, "execute_notebook", execute_notebook)
    return tmp_path


def bring(path, name, *more, source="parameter-golf"):
    """Call ``import``."""
    return main(["import", str(path), "--from", source, "--name", name, *more])


def test_an_official_run_is_imported_with_its_log(golf, place, capsys):
    assert bring(golf / "final_model.pt", "mine") == 0
    assert "difference +0.0000" in capsys.readouterr().err.replace("-0.0000", "+0.0000")
    run = find_run("mine")
    record = run.record()
    assert (record["status"], record["parent"], record["seed"]) == ("finished", None, 7)
    assert (record["steps_done"], record["training"]["sequence_length"]) == (2, 32)
    imported = record["imported"]
    assert imported["path"] == str(golf / "final_model.pt")
    assert imported["format"] == "parameter-golf"
    assert {*imported["files"]} == {"final_model.pt", "train.log"}
    assert imported["assumed"] == ["rope_base", "softcap"]
    assert record["data"]["source"] == str(golf / "data")
    assert [line["step"] for line in read_jsonl(run.metrics)] == [0, 1, 2]
    assert {"import.ipynb", "tokens.nc", "model.safetensors", "tokenizer"} <= {
        path.name for path in run.path.iterdir()
    }
    assert (run.path / "run.json").stat().st_size < 10_000
    assert main(["diagnose", "mine", "--only", "effective_rank"]) == 0
    capsys.readouterr()
    assert main(["runs", "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["name"] == "mine" and row["steps"] == 2 and row["seed"] == 7


def test_a_wrong_assumption_is_said_loudly(golf, place, capsys):
    assert bring(golf / "final_model.pt", "other", "-p", "model", "{softcap: 3.0}") == 0
    said = capsys.readouterr().err
    assert "MISMATCH" in said and "rope_base" in said
    assert find_run("other").record()["imported"]["sources"]["softcap"] == "given"


def test_an_import_is_followed_by_no_progress_bar(golf, place):
    foreign = read_foreign(golf / "final_model.pt")
    run = adopt("quiet", foreign, open_data(foreign.corpus), path="quiet")
    with execution.following(run):  # a line of its log has no training loss
        pass


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["-p", "model", "{rope_bass: 1}"], "rope_base"),
        (["-p", "model", "{n_layer: 3}"], "missing blocks.2"),
        (["-p", "tokenizer", "bytes"], "tokenizer beside the shards"),
        (["-p", "corpus", "nowhere"], "nowhere"),
        (["-p", "dtype", "int8"], "float32"),
        (["-p", "sequence_length", "100000"], "validation split"),
        (["-p", "log", "absent.log"], "absent.log"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(golf, place, capsys, more, words):
    assert bring(golf / "final_model.pt", "a", *more) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and words in shown.err, shown.err
    assert not runs_root().exists() or not list(runs_root().iterdir())


def test_weights_that_are_not_finite_are_refused(golf, place):
    foreign = read_foreign(golf / "final_model.pt")
    with torch.no_grad():
        foreign.network.skip_weights[0, 0] = torch.nan
    with pytest.raises(InputError, match="skip_weights"):
        adopt("a", foreign, open_data(foreign.corpus), path="a")
    assert not runs_root().exists()


def test_without_a_tokenizer_or_with_too_few_rows(golf, place):
    alone = place / "final_model.pt"
    alone.write_bytes((golf / "final_model.pt").read_bytes())
    with pytest.raises(InputError, match="-p tokenizer"):
        read_foreign(alone)
    small = new_network(preset("baseline", n_layer=1, d_model=16, vocab_size=200), seed=0)
    write(small, place / "small")
    foreign = read_foreign(
        place / "small" / "final_model.pt", tokenizer=next((golf / "data").glob("*.model"))
    )
    data = open_data(golf / "data")
    with pytest.raises(InputError, match="at least the tokenizer's 300"):
        adopt("a", foreign, data, path="a")


def test_a_long_context_is_taken_only_when_given(golf, place, tiny_data):
    foreign = read_foreign(golf / "final_model.pt", sequence_length=4096)
    assert foreign.sources["sequence_length"] == "given"
    with pytest.raises(InputError, match="validation split"):
        adopt("a", foreign, open_data(foreign.corpus), path="a")


def test_a_hugging_face_folder_is_imported(place, golf, capsys):
    network = new_network(preset("llama", n_layer=2, d_model=32, vocab_size=300), seed=0)
    folder = place / "theirs"
    write_huggingface(network, folder, sequence_length=64)
    shards = ["-p", "corpus", str(golf / "data"), "-p", "sequence_length", "32"]
    model = str(next((golf / "data").glob("*.model")))
    assert bring(folder, "theirs", *shards, "-p", "tokenizer", model, source="huggingface") == 0
    assert "no recorded score" in capsys.readouterr().err
    record = find_run("theirs").record()
    assert (record["steps_done"], record["imported"]["format"]) == (0, "huggingface")
    given = ["-p", "tokenizer", model, "-p", "model", "{rope_base: 5.0}"]
    assert bring(folder, "again", *given, source="huggingface") == 2
    assert "rope_base" in capsys.readouterr().err
    assert main(["export", "theirs", "--to", "huggingface"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {"config.json", "model.safetensors"} <= {*said["files"]}
    config = json.loads((Path(said["folder"]) / "config.json").read_text())
    assert config["max_position_embeddings"] == 32
    assert main(["export", "theirs", "--to", "parameter-golf"]) == 2
    assert "norm_eps" in capsys.readouterr().err


def test_a_run_is_exported_and_comes_back(golf, place, capsys):
    assert bring(golf / "final_model.pt", "mine", "-p", "log", str(golf / "train.log")) == 0
    capsys.readouterr()
    script = golf / "train.log"
    arguments = ["--to", "parameter-golf", "--output", str(place / "out"), "--code", str(script)]
    assert main(["export", "mine", *arguments]) == 0
    said = json.loads(capsys.readouterr().out)
    sizes = {path.name: path.stat().st_size for path in (place / "out").iterdir()}
    assert said["files"] == sizes and said["code_bytes"] == script.stat().st_size
    assert said["submission_bytes"] == sizes["final_model.int8.ptz"] + said["code_bytes"]
    again = read_parameter_golf(place / "out" / "final_model.pt").network
    assert again.config == open_run("mine").model.config


def test_a_tokenizer_of_absurd_size_is_not_read(golf, place):
    tokenizer = place / "tokenizer.json"
    tokenizer.touch()
    os.truncate(tokenizer, 2**34)  # a hole: no bytes on the disk
    with pytest.raises(InputError, match=r"tokenizer\.json.*bytes, more than"):
        read_foreign(golf / "final_model.pt", tokenizer=str(tokenizer))


def test_a_context_is_a_number_of_tokens(golf, place):
    with pytest.raises(InputError, match=r"final_model\.pt.*sequence_length of 1 token.*found 0"):
        read_foreign(golf / "final_model.pt", sequence_length=0)
    with pytest.raises(InputError, match="-3"):
        read_foreign(golf / "final_model.pt", sequence_length=-3)


def test_importing_twice_gives_the_same_state(golf, place):
    first, second = (
        adopt(name, foreign, open_data(foreign.corpus), path="a")
        for name in ("first", "second")
        for foreign in [read_foreign(golf / "final_model.pt")]
    )
    assert first.weights() == second.weights() is not None


def test_a_run_that_goes_on_from_an_import_begins_its_optimizer_anew(golf, place):
    foreign = read_foreign(golf / "final_model.pt")
    run = adopt("mine", foreign, open_data(foreign.corpus), path="a")
    begun, steps = [], []

    def record(optimizer, *_):
        if optimizer not in begun:
            begun.append(optimizer)
            steps.append(len(optimizer.state))

    hook = register_optimizer_step_pre_hook(record)
    sizes = {"steps": 2, "tokens_per_step": 256, "sequence_length": 32, "warmdown_steps": 0}
    try:
        data, network = (
            open_data(foreign.corpus),
            starting_point(foreign.network.config, seed=0, parent="mine"),
        )
        assert all(torch.equal(t, state(foreign.network)[n]) for n, t in state(network).items())
        config = TrainConfig(**sizes)
        child = begin("child", network, data, config, origin={"parent": "mine"})
        train(network, data, config, child)
    finally:
        hook.remove()
    assert begun and steps == [0] * len(begun), "no moments before the first step"
    assert [line["step"] for line in read_jsonl(child.metrics)] == [1, 2]
    assert child.record()["parent"] == "mine" and child.weights() != run.weights()


def test_a_run_stored_in_half_precision_is_computed_in_single(golf, place, capsys):
    assert bring(golf / "final_model.pt", "half", "-p", "dtype", "bfloat16") == 0
    run = find_run("half")
    assert {each[1] for each in read_header(run.path / "model.safetensors").values()} == {"BF16"}
    opened = open_run("half")
    assert {each.dtype for each in opened.model.parameters()} == {torch.float32}
    _, table = evaluate(opened)
    held = opened.data.validation
    checks = self_test(opened.model, held, opened.tokenizer, sequence_length=32)
    assert bool(checks.passed.all()) and len(table.nll) > 0


MEMORY = """
import resource, sys
import nbformat

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

notebook, corpus, model, *folders = sys.argv[1:]
for folder in folders:
    space, before = {}, peak()
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, space)
        if "parameters" in cell.metadata.get("tags", []):
            space |= {"path": folder, "name": "m", "replace": True, "dtype": "bfloat16"}
            space |= {"corpus": corpus, "tokenizer": model, "sequence_length": 32}
            space["format"] = "huggingface"
sizes = [each.numel() * each.element_size() for each in space["opened"].model.parameters()]
print(before, peak(), sum(sizes), file=sys.stderr)
"""


@pytest.mark.slow
def test_an_import_holds_its_weights_twice_at_most(golf, place):
    shapes = {
        "tiny": {"n_layer": 1, "n_head": 2, "d_model": 16},
        "large": {"n_layer": 14, "n_head": 12, "d_model": 768, "feedforward_width": 2560},
    }
    for name, shape in shapes.items():
        made = new_network(preset("llama", **shape, vocab_size=300), seed=0).bfloat16()
        write_huggingface(made, place / name, sequence_length=32)
    folders = [str(place / name) for name in shapes]
    notebook = str(PROJECT / "notebooks" / "experiments" / "import.ipynb")
    model = str(next((golf / "data").glob("*.model")))
    done = subprocess.run(
        ["sh", "-c", '"$@"; exit $?', "sh"]  # a child begins with the peak of what forked it
        + [sys.executable, "-c", MEMORY, notebook, str(golf / "data"), model, *folders],
        capture_output=True,
        text=True,
        check=True,
    )
    tiny, large, size = map(int, done.stderr.split()[-3:])
    assert size > 400e6
    assert large - tiny < 2.2 * size  # the self-test saves and reloads: a second copy


@pytest.mark.parametrize("gap", [0.0004, 0.0006, -0.0006])
def test_scores_are_the_same_to_half_a_thousandth(golf, place, gap):
    foreign = read_foreign(golf / "final_model.pt")
    run = adopt("mine", foreign, open_data(foreign.corpus), path="mine")
    verdict = compare_recorded(
        run, {"bits_per_byte": foreign.notes["recorded_bits_per_byte"] + gap, "loss_nat": 2.0}
    )
    assert ("MISMATCH" in verdict) == (abs(gap) > 0.0005)
    assert run.record()["imported"]["verdict"] == verdict


def test_start_here_imports_in_place(golf, place, tiny_run):
    shutil.copytree(tiny_run.path, runs_root() / tiny_run.name)
    chooser = explore.choose_run(tiny_run.name)
    chooser.path.value = str(golf)
    assert str(golf / "final_model.pt") in chooser.path.options
    chooser.path.value = str(golf / "absent.pt")
    chooser.button.click()
    assert "No such file" in chooser.said.value and chooser.folder.name == tiny_run.name
    chooser.path.value = str(golf / "final_model.pt")
    chooser.button.click()
    assert "recorded" in chooser.said.value and "MISMATCH" not in chooser.said.value
    assert chooser.folder.record()["imported"]["format"] == "parameter-golf"
    assert not chooser.button.disabled
