import json
import tempfile
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.execution import (
    NotebookFailed,
    following,
    parameters_of,
    parse_parameters,
    run_experiment,
    run_notebook,
)
from workbench.folder import PROJECT, InputError, append_jsonl, create_run, runs_root

TRAIN = PROJECT / "notebooks" / "experiments" / "train.ipynb"
PARAMETERS = """\
name: str = "first"  # of the run
replace: bool = False  # remove the old one
note: str = ""  # a file to read; '#' and \u00e9 do no harm
end: str = ""  # "input", "fault" or "kill": how it goes wrong
steps: int = 3  # updates
rate: float = 0.5  # of learning
seconds: float | None = None  # budget
label: str | None = None
model: dict = {"d_model": 16}  # fields
layers: list[int] | None = None  # which"""
BODY = """\
import os, pathlib
from workbench import folder

content = pathlib.Path(note).read_text() if note else ""
if end == "input":
    raise folder.InputError(note, expected="more", found=content, remedy="Write\\nmore.")
run = folder.create_run(name, replace=replace)
content"""
END = """\
if end == "fault":
    raise ZeroDivisionError("planted")
if end == "kill":
    os.kill(os.getpid(), 9)
run.update(status="finished")"""


def write_notebook(path, *, parameters=PARAMETERS, tags=("parameters",)):
    cell = nbformat.v4.new_code_cell(parameters, id="cell-1", metadata={"tags": list(tags)})
    rest = [
        nbformat.v4.new_code_cell(source, id=f"cell-{number}")
        for number, source in enumerate((BODY, END), start=2)
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell, *rest]), path)
    return path


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    return write_notebook(tmp_path_factory.mktemp("notebooks") / "tiny.ipynb")


def test_parameters_have_type_default_and_help(notebook):
    found = parameters_of(notebook)
    assert list(found) == [line.split(":")[0] for line in PARAMETERS.splitlines()]
    assert found["steps"] == ("int", 3, "updates")
    assert found["seconds"] == ("float | None", None, "budget")
    assert found["note"] == ("str", "", "a file to read; '#' and \u00e9 do no harm")
    assert found["label"] == ("str | None", None, "")
    assert found["model"] == ("dict", {"d_model": 16}, "fields")


def test_help_stands_after_text_that_is_not_ascii(tmp_path):
    line = 'note: str = "\u00e9\u00e9\u00e9 # x"  # \u00e9'
    assert parameters_of(write_notebook(tmp_path / "a.ipynb", parameters=line)) == {
        "note": ("str", "\u00e9\u00e9\u00e9 # x", "\u00e9")
    }


def test_every_default_of_a_shipped_notebook_fits_its_own_type():
    for key, (annotation, default, note) in parameters_of(TRAIN).items():
        assert note, key
        if "str" not in annotation:
            text = json.dumps(default)
            assert parse_parameters(TRAIN, [(key, text)]) == {key: default}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("steps", "12", 12),
        ("steps", "-1", -1),
        ("rate", "2", 2),
        ("rate", "1e-3", 0.001),
        ("rate", "-.5e+2", -50.0),
        ("rate", "0.25", 0.25),
        ("seconds", "null", None),
        ("seconds", "", None),
        ("seconds", "600", 600),
        ("replace", "true", True),
        ("replace", "no", False),
        ("note", "007", "007"),
        ("note", "null", "null"),
        ("note", "a: b # c", "a: b # c"),
        ("note", "", ""),
        ("label", "null", None),
        ("label", "12", "12"),
        ("model", "{n_layer: 2, rope_base: 1e4}", {"n_layer": 2, "rope_base": 10000.0}),
        ("model", "{}", {}),
        ("model", '{a: "1e-3", b: {c: [1e-3]}}', {"a": "1e-3", "b": {"c": [0.001]}}),
        ("layers", "[1, 2]", [1, 2]),
        ("layers", "null", None),
    ],
)
def test_values_take_the_type_of_their_annotation(notebook, key, text, value):
    found = parse_parameters(notebook, [(key, text)])[key]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("steps", "1.5"),
        ("steps", "1e3"),
        ("steps", "true"),
        ("steps", "many"),
        ("steps", "null"),
        ("rate", "fast"),
        ("rate", "yes"),
        ("rate", "[1]"),
        ("replace", "1"),
        ("replace", "maybe"),
        ("model", "n_layer"),
        ("model", "[1]"),
        ("model", "{n_layer: 2"),
        ("model", "{a: 2020-13-45}"),
        ("seconds", "soon"),
        ("layers", "3"),
    ],
)
def test_values_of_another_type_are_refused(notebook, key, text):
    with pytest.raises(InputError) as caught:
        parse_parameters(notebook, [(key, text)])
    assert key in caught.value.where and text in caught.value.found


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # letters that mean something to YAML, and spell numbers
    | st.text("ab1e.-+: #'{}[]&*!|>%@", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc1e"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc1e-"), values, max_size=3))
def test_json_is_read_as_it_is(notebook, value):
    assert parse_parameters(notebook, [("model", json.dumps(value))]) == {"model": value}


def test_an_unknown_parameter_names_the_nearest(notebook):
    with pytest.raises(InputError, match="Nearest: steps"):
        parse_parameters(notebook, [("stepz", "3")])
    with pytest.raises(InputError, match="Nearest: steps"):
        run_notebook(notebook, Path("never.ipynb"), {"stepz": 3})
    assert not Path("never.ipynb").exists()


@pytest.mark.parametrize(
    ("parameters", "tags", "words"),
    [
        (PARAMETERS, ("other",), "tagged 'parameters'"),
        ("steps: int = 2 *", ("parameters",), "invalid syntax"),
        ("steps: int = max(1, 2)", ("parameters",), "malformed"),
        ("steps: Path = 3", ("parameters",), "steps: Path"),
    ],
)
def test_a_notebook_without_proper_parameters_is_refused(tmp_path, parameters, tags, words):
    path = write_notebook(tmp_path / "a.ipynb", parameters=parameters, tags=tags)
    with pytest.raises(InputError, match=words):
        parameters_of(path)


def test_what_is_no_notebook_is_refused(tmp_path):
    with pytest.raises(InputError, match="no file"):
        parameters_of(tmp_path / "missing.ipynb")
    for name, content in (("text.ipynb", "hello"), ("list.ipynb", "[1, 2]"), ("empty.ipynb", "")):
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match="a notebook"):
            parameters_of(tmp_path / name)


def test_equal_runs_give_equal_and_clean_notebooks(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("note.txt").write_text("from the caller's folder", encoding="utf-8")
    elsewhere = Path("/dev/shm")  # where there is one, another disk than the runs'
    if elsewhere.is_dir():
        monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    given_ = {"note": "note.txt", "model": {"d_model": 8}}
    contents = []
    for _ in range(2):
        run = run_experiment(notebook, "tiny-equal", given_, replace=True)
        assert run.record()["status"] == "finished"
        contents.append((run.path / "tiny.ipynb").read_bytes())
    assert contents[0] == contents[1]
    done = nbformat.reads(contents[0].decode(), as_version=4)
    nbformat.validate(done)
    assert [cell.id for cell in done.cells] == [
        "cell-1",
        "parameters-of-this-run",
        "cell-2",
        "cell-3",
    ]
    assert [cell.execution_count for cell in done.cells] == [1, 2, 3, 4]
    assert done.cells[2].outputs[0].data["text/plain"] == repr("from the caller's folder")
    for part in (done, *done.cells):
        assert not {"papermill", "execution", "widgets"} & set(part.metadata)
    assert list(tmp_path.iterdir()) == [tmp_path / "note.txt"]


def test_a_failing_cell_leaves_its_notebook_in_the_run(notebook):
    with pytest.raises(
        NotebookFailed, match=r"tiny.ipynb, cell 4: ZeroDivisionError: planted"
    ) as e:
        run_experiment(notebook, "tiny-fault", {"end": "fault"})
    assert not e.value.refused
    done = nbformat.read(runs_root() / "tiny-fault" / "tiny.ipynb", as_version=4)
    (error,) = (o for cell in done.cells for o in cell.get("outputs", []) if "ename" in o)
    assert (error.ename, error.evalue) == ("ZeroDivisionError", "planted")


def test_refused_input_leaves_nothing(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("note.txt").write_text("little", encoding="utf-8")
    with pytest.raises(NotebookFailed, match="note.txt: expected more; found little") as caught:
        run_experiment(notebook, "tiny-refused", {"end": "input", "note": "note.txt"})
    assert caught.value.refused
    assert not (runs_root() / "tiny-refused").exists()


def test_a_killed_kernel_is_a_failure(notebook):
    with pytest.raises(NotebookFailed, match="killed") as caught:
        run_experiment(notebook, "tiny-killed", {"end": "kill"})
    assert not caught.value.refused
    assert (runs_root() / "tiny-killed" / "tiny.ipynb").exists()


def test_a_taken_name_is_refused_before_anything_runs(notebook):
    run = create_run("tiny-taken")
    before = (run.path / "run.json").read_bytes()
    with pytest.raises(InputError, match="--replace"):
        run_experiment(notebook, "tiny-taken", {})
    assert (run.path / "run.json").read_bytes() == before
    assert list(run.path.iterdir()) == [run.path / "run.json"]


def test_progress_of_another_process_is_shown(capsys):
    run = create_run("tiny-followed")
    with following(run):
        run.update(status="running", training={"steps": 4})
        for step in (1, 2):
            line = {"step": step, "loss": 2.5, "tokens": 100 * step, "seconds": 0.5 * step}
            append_jsonl(run.metrics, line)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "tiny-followed" in shown.err and "2/4" in shown.err and "loss 2.500" in shown.err


def test_progress_of_an_older_run_is_not_shown(capsys):
    run = create_run("tiny-older")
    run.update(status="running", training={"steps": 4})
    append_jsonl(run.metrics, {"step": 4, "loss": 2.5, "tokens": 1, "seconds": 1})
    with following(run, newer_than=(run.path / "run.json").stat().st_mtime_ns):
        pass
    assert capsys.readouterr().err == ""
