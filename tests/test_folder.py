"""The run folder: names that cannot escape, files that are whole or absent, honest records."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench import folder
from workbench.folder import (
    InputError,
    RunFolder,
    append_jsonl,
    create_run,
    digest,
    find_run,
    read_json,
    read_jsonl,
    replacing,
    valid_name,
    write_json,
)

JSON_LINES = st.lists(
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=8) | st.none()),
    max_size=6,
)
per_example = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


# --- errors and names ------------------------------------------------------------------------


def test_an_error_carries_its_four_parts():
    error = InputError("there", expected="this", found="that", remedy="Do so.")
    assert (error.where, error.expected, error.found, error.remedy) == (
        "there",
        "this",
        "that",
        "Do so.",
    )
    assert str(error) == "there: expected this; found that. Do so."
    assert isinstance(error, ValueError)


@given(st.text(max_size=90) | st.text("./\\~ab-\n\0", max_size=6))
def test_no_accepted_name_leaves_its_folder(name):
    try:
        accepted = valid_name(name)
    except InputError:
        return
    base = os.path.join(os.sep, "data", "runs")
    path = os.path.normpath(os.path.join(base, accepted))
    assert os.path.dirname(path) == base and os.path.basename(path) == name
    assert name[0] not in ".-" and name.isascii() and not set(name) & set(" \n\t;&|$`'\"*?")


@given(st.from_regex(r"[A-Za-z0-9]([._-]?[A-Za-z0-9_-]){0,30}", fullmatch=True))
def test_ordinary_names_are_accepted(name):
    assert valid_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "/a", "a\\b", "../a", ".a", "-a", "a..b", "a\n", "x" * 81, "\u00e9"],
)
def test_a_bad_name_is_refused(name):
    with pytest.raises(InputError, match="Choose another name"):
        valid_name(name)


def test_nearest_names_what_was_probably_meant():
    assert folder.nearest("stesp", ["steps", "seed"]).startswith("Nearest: steps")
    assert folder.nearest("qqqq", ["steps", "seed"]) == "Choose from: steps, seed."


# --- whole files -----------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failed_replacement_keeps_the_old_file_and_nothing_else(tmp_path, failure):
    target = tmp_path / "numbers.txt"
    target.write_text("old")
    with pytest.raises(failure), replacing(target) as scratch:
        scratch.write_text("half of")
        raise failure
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_replacement_is_unseen_until_it_is_whole(tmp_path):
    target = tmp_path / "new" / "numbers.txt"
    with replacing(target) as scratch:
        scratch.write_text("1")
        assert scratch.suffix == ".txt" and scratch.parent == target.parent
        assert not target.exists()
    assert target.read_text() == "1" and list(target.parent.iterdir()) == [target]


def test_json_round_trip_and_nan_refused(tmp_path):
    path = tmp_path / "a.json"
    value = {"x": [1, 2.5, None, "\u00e9"], "y": {"z": True}}
    write_json(path, value)
    assert read_json(path) == value
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"x": float("nan")})
    assert read_json(path) == value and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [None, b"", b"{", b"{'a': 1}", b"\xff\xfe"])
def test_json_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert caught.value.where == str(path) and "JSON" in caught.value.expected


@per_example
@given(lines=JSON_LINES, cut=st.integers(0, 400))
def test_a_cut_jsonl_keeps_every_whole_line(tmp_path, lines, cut):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"")
    ends = [0]
    for line in lines:
        append_jsonl(path, line)
        ends.append(path.stat().st_size)
    assert read_jsonl(path) == lines
    path.write_bytes(path.read_bytes()[:cut])
    whole = sum(end <= cut for end in ends[1:])
    assert read_jsonl(path) == lines[:whole]


def test_a_line_is_on_disk_once_appended(tmp_path):
    """The process dies at once after appending: nothing may wait in a buffer."""
    path = tmp_path / "metrics.jsonl"
    code = (
        "import os, sys; from pathlib import Path; from workbench.folder import append_jsonl\n"
        "append_jsonl(Path(sys.argv[1]), {'step': 1}); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=folder.PROJECT, check=False)
    assert read_jsonl(path) == [{"step": 1}]


def test_no_jsonl_is_no_line_and_a_nan_is_refused(tmp_path):
    assert read_jsonl(tmp_path / "none.jsonl") == []
    with pytest.raises(ValueError, match="JSON"):
        append_jsonl(tmp_path / "a.jsonl", {"loss": float("inf")})
    assert read_jsonl(tmp_path / "a.jsonl") == []


def test_a_jsonl_broken_inside_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st{"step": 2}\n')
    with pytest.raises(InputError, match="line 2") as caught:
        read_jsonl(path)
    assert caught.value.where == str(path)


def test_digest_against_hashlib():
    by_hand = b"".join(len(part).to_bytes(8, "little") + part for part in (b"ab", b"\xc3\xa9"))
    assert digest("ab", "\u00e9") == hashlib.sha256(by_hand).hexdigest() == digest(b"ab", "\u00e9")


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_digest_tells_parts_apart(some, others):
    assert (digest(*some) == digest(*others)) == (some == others)


# --- a run's record --------------------------------------------------------------------------


def gone_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("status", "host", "alive", "expected"),
    [
        ("running", "here", True, "running"),
        ("running", "here", False, "crashed"),
        ("running", "elsewhere", False, "running"),
        ("finished", "here", False, "finished"),
        ("planned", "here", False, "planned"),
    ],
)
def test_a_run_whose_process_is_gone_has_crashed(tmp_path, status, host, alive, expected):
    run = create_run("a", root=tmp_path)
    here = folder.environment()
    pid = os.getpid() if alive else gone_pid()
    where = here["host"] if host == "here" else "some-other-machine.invalid"
    run.update(status=status, environment={**here, "host": where, "pid": pid})
    assert run.record()["status"] == expected
    assert read_json(run.path / "run.json")["status"] == status, "reading changes nothing"


def test_a_record_that_is_no_object_is_named(tmp_path):
    run = create_run("a", root=tmp_path)
    (run.path / "run.json").write_text("[1]")
    with pytest.raises(InputError, match="object"):
        run.record()


def test_update_changes_only_what_it_is_given(tmp_path):
    run = create_run("a", root=tmp_path)
    run.update(seed=3)
    run.update(status="running", extra=[1])
    assert run.record() == {
        "schema_version": folder.SCHEMA_VERSION,
        "name": "a",
        "status": "running",
        "seed": 3,
        "extra": [1],
    }
    with pytest.raises(ValueError, match="crashed"):
        run.update(status="crashed")
    assert run.record()["status"] == "running"


def test_environment_is_plain_json():
    found = json.loads(json.dumps(folder.environment(), allow_nan=False))
    assert found["pid"] == os.getpid()
    assert {"host", "python", "packages", "code", "platform", "processors"} <= set(found)


def test_create_run_and_replace(tmp_path):
    run = create_run("a", root=tmp_path)
    assert run.name == "a" and run.record()["status"] == "planned"
    (run.path / "model.safetensors").write_text("old")
    with pytest.raises(InputError, match="--replace"):
        create_run("a", root=tmp_path)
    assert (run.path / "model.safetensors").exists()
    again = create_run("a", root=tmp_path, replace=True)
    assert [path.name for path in again.path.iterdir()] == ["run.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_only_runs_are_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    (tmp_path / "file").write_text("more")
    for name in ("thesis", "file"):
        with pytest.raises(InputError, match="by hand"):
            create_run(name, root=tmp_path, replace=True)
    assert (tmp_path / "thesis" / "chapter").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "thesis"]


def test_a_bad_name_makes_nothing(tmp_path):
    with pytest.raises(InputError):
        create_run("../outside", root=tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_find_run_by_name_and_by_path(tmp_path):
    made = create_run("first", root=tmp_path)
    assert find_run("first", root=tmp_path).path == made.path
    assert find_run(made.path).path == made.path.resolve()
    with pytest.raises(InputError, match="Nearest: first"):
        find_run("frist", root=tmp_path)
    with pytest.raises(InputError, match="workbench train"):
        find_run("first", root=tmp_path / "empty")
    with pytest.raises(InputError):
        find_run("../first", root=tmp_path / "empty")


def test_the_data_folder_can_be_moved(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "elsewhere"))
    assert create_run("a").path == tmp_path / "elsewhere" / "runs" / "a"
    monkeypatch.delenv("WORKBENCH_DATA")
    assert folder.data_root() == folder.PROJECT / "data"


def test_paths_of_a_run(tmp_path):
    run = RunFolder(tmp_path / "a")
    assert run.metrics == tmp_path / "a" / "metrics.jsonl"
    assert run.checkpoints == tmp_path / "a" / "checkpoints"
