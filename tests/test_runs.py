"""The registry: rows from folders, comparisons that never mix, and the forms it prints."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench import runs
from workbench.folder import create_run, environment

EVALUATION = {
    "bits_per_byte": 2.25,
    "standard_error": 0.01,
    "protocol": "full",
    "corpus_hash": "c" * 64,
    "context": 256,
}


@pytest.fixture
def root(tmp_path):
    create_run("b-child", root=tmp_path).update(
        status="finished",
        parent="a",
        seed=7,
        steps_done=200,
        training={"seconds": None, "steps": 200},
        evaluation=EVALUATION,
        bits_per_byte_quantized=2.26,
        artifact_bytes=123456,
    )
    create_run("a", root=tmp_path).update(status="failed")
    (create_run("c", root=tmp_path).path / "run.json").write_text('{"status": "fin')
    (create_run("d", root=tmp_path).path / "run.json").write_text("[]")
    (tmp_path / "notes").mkdir()
    return tmp_path


def row(name, **fields):
    return {**dict.fromkeys((*runs.COLUMNS, *EVALUATION, "budget")), "name": name, **fields}


def test_rows(root):
    rows = {each["name"]: each for each in runs.list_runs(root)}
    assert list(rows) == ["a", "b-child", "c", "d"], "sorted; a folder without a record is no run"
    child = rows["b-child"]
    assert {name: child[name] for name in runs.COLUMNS} == {
        "name": "b-child",
        "status": "finished",
        "parent": "a",
        "bits_per_byte": 2.25,
        "bits_per_byte_quantized": 2.26,
        "protocol": "full",
        "artifact_bytes": 123456,
        "steps": 200,
        "seed": 7,
    }
    assert child["standard_error"] == 0.01 and child["context"] == 256
    assert rows["a"]["bits_per_byte"] is None and rows["a"]["steps"] is None, "absent, never 0"
    assert rows["c"]["status"] == rows["d"]["status"] == "unreadable"


def test_a_dead_process_shows(tmp_path):
    create_run("a", root=tmp_path).update(
        status="running", environment={**environment(), "pid": 2**22 + 1}
    )
    assert runs.list_runs(tmp_path)[0]["status"] == "crashed"


def test_no_runs(tmp_path):
    assert runs.list_runs(tmp_path / "none") == []
    assert "train" in runs.to_text([]) and "train" in runs.to_tree([])
    assert runs.to_json([]) == "[]" and runs.to_leaderboard([]) == "no evaluated runs yet"
    assert runs.to_csv([]) == ",".join(runs.COLUMNS)


GROUPING = ("corpus_hash", "protocol", "context", "budget")
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "bits_per_byte": st.none() | st.floats(0.5, 4),
            "corpus_hash": st.sampled_from("xy"),
            "protocol": st.sampled_from(["full", "sliding:64"]),
            "context": st.sampled_from([128, 256]),
            "budget": st.sampled_from(["200 steps", "60 s"]),
        }
    ),
    max_size=12,
)


@given(ROWS)
def test_a_leaderboard_never_mixes(fields):
    rows = [row(f"r{number}", **each) for number, each in enumerate(fields)]
    groups = runs.leaderboard(rows)
    keys = [{tuple(each[name] for name in GROUPING) for each in group} for group in groups]
    assert all(len(key) == 1 for key in keys), "one protocol, corpus, context and budget"
    assert len(set.union(set(), *keys)) == len(groups), "and one group for each"
    for group in groups:
        values = [each["bits_per_byte"] for each in group]
        assert values == sorted(values)
    ranked = sorted(each["name"] for group in groups for each in group)
    assert ranked == sorted(r["name"] for r in rows if r["bits_per_byte"] is not None)


def test_sixty_seconds_are_not_sixty_steps(tmp_path):
    for name, training in (
        ("time", {"seconds": 60.0, "steps": 1000}),
        ("steps", {"seconds": None, "steps": 60}),
    ):
        create_run(name, root=tmp_path).update(training=training, evaluation=EVALUATION)
    rows = runs.list_runs(tmp_path)
    assert len(runs.leaderboard(rows)) == 2
    text = runs.to_leaderboard(rows)
    assert "budget 60 steps" in text and "budget 60.0 s" in text


def test_tree():
    rows = [
        row("leaf", parent="child"),
        row("child", parent="root", bits_per_byte=2.5),
        row("other", parent="removed"),
        row("root"),
        row("self", parent="self"),
    ]
    assert runs.to_tree(rows).splitlines() == [
        "other  -",
        "root  -",
        "  child  2.5000",
        "    leaf  -",
        "self  -",
    ]


def test_a_ring_of_parents_is_shown_once():
    """Training b from a, then a anew from b, makes a ring."""
    rows = [row("a", parent="b"), row("b", parent="a"), row("c", parent="b"), row("d")]
    lines = [line.split()[0] for line in runs.to_tree(rows).splitlines()]
    assert sorted(lines) == ["a", "b", "c", "d"]


def test_text_columns_line_up(root):
    lines = runs.to_text(runs.list_runs(root)).splitlines()
    assert lines[0].split() == list(runs.COLUMNS)
    assert lines[2].split() == "b-child finished a 2.2500 2.2600 full 123456 200 7".split()
    at = lines[0].index("protocol")
    assert [line[at - 2 : at] for line in lines] == ["  "] * len(lines)
    assert lines[1].split() == ["a", "failed", *"-------"]


def test_csv_and_json_say_the_same(root):
    rows = runs.list_runs(root)
    parsed = json.loads(runs.to_json(rows))
    assert [list(each) for each in parsed] == [list(runs.COLUMNS)] * len(rows)
    table = list(csv.DictReader(io.StringIO(runs.to_csv(rows))))
    for each, line in zip(parsed, table, strict=True):
        assert {k: "" if v is None else str(v) for k, v in each.items()} == line
