"""The registry: rows from folders, comparisons that never mix, and the forms it prints."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench import runs
from workbench.folder import InputError, create_run, environment

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
        artifact="small",
        artifacts={"small": {"bytes": 123456, "bits_per_byte": 2.26}, "other": {"bytes": 9}},
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


SAME = {"corpus_hash": "c" * 64, "protocol": "full", "context": 256, "budget": "9 steps"}
HAND = [
    {**SAME, "run": "a", "step": 0, "owned": 0.0, "bpb": 3.0},
    {**SAME, "run": "a", "step": 9, "owned": 1.0, "bpb": 2.4},
    {**SAME, "run": "b", "step": 9, "owned": 1.0, "bpb": 2.2},
    {**SAME, "run": "c", "step": 9, "owned": 0.5, "bpb": 1.9},
    {**SAME, "run": "d", "step": 9, "bpb": 1.0},
    {**SAME, "run": "e", "step": 9, "owned": float("nan"), "bpb": 1.0},
]


def test_a_checkpoint_is_ranked_only_if_it_satisfies_every_constraint():
    found = runs.select_checkpoint(["owned >= 1", "bpb < 2.5"], "bpb", rows=HAND)
    assert (found["chosen"]["run"], found["chosen"]["step"]) == ("b", 9)
    assert found["verdict"] == "2 of 6 checkpoints satisfy every constraint"
    assert [row["run"] for row in found["rows"][:2]] == ["b", "a"]
    failing = {(row["run"], row["step"]): row["failing"] for row in found["rows"]}
    assert failing["a", 0] == ["owned >= 1", "bpb < 2.5"] and failing["c", 9] == ["owned >= 1"]
    assert failing["d", 9] == failing["e", 9] == ["owned >= 1"], "what is unmeasured fails"
    largest = runs.select_checkpoint(["owned >= 1"], "-bpb", rows=HAND)
    assert largest["chosen"]["run"] == "a"


def test_no_constraint_and_none_satisfied_are_said():
    nothing = runs.select_checkpoint([], "bpb", rows=HAND)
    assert nothing["chosen"] is None and "no constraint" in nothing["verdict"]
    none = runs.select_checkpoint(["bpb < 0.5"], "bpb", rows=HAND)
    assert none["chosen"] is None and none["verdict"].startswith("none of 6")
    unranked = runs.select_checkpoint(["owned >= 1"], rows=HAND)
    assert unranked["chosen"] is None and "none can be ranked" in unranked["verdict"]
    assert runs.select_checkpoint(["x > 0"], "x", rows=[])["verdict"].startswith("none of 0")


@pytest.mark.parametrize(
    "other", [{"corpus_hash": "w" * 64}, {"protocol": "answers"}, {"context": 32}]
)
def test_nothing_is_chosen_between_what_has_no_order(other):
    rows = [*HAND, {**SAME, **other, "run": "world", "step": 9, "owned": 1.0, "bpb": 0.04}]
    found = runs.select_checkpoint(["owned >= 1"], "bpb", rows=rows)
    assert found["chosen"] is None
    value = str(next(iter(other.values())))[:12]
    assert f"{value}" in found["verdict"] and ": world" in found["verdict"]
    assert "if row['run'] in ['world']" in found["verdict"], "how to narrow"
    kept = runs.select_checkpoint(["owned >= 1", "bpb > 1"], "bpb", rows=rows)
    assert kept["chosen"]["run"] == "b", "what does not pass is not compared"


def test_budgets_may_differ_and_are_said():
    rows = [HAND[1], HAND[2] | {"budget": "60 s on cpu"}]
    found = runs.select_checkpoint(["owned >= 1"], "bpb", rows=rows)
    assert found["chosen"]["run"] == "b"
    assert "budgets differ (60 s on cpu; 9 steps)" in found["verdict"]


def test_runs_that_were_never_evaluated_are_not_compared():
    rows = [{"run": name, "step": step, "x": 1.0, "y": step} for name in "ab" for step in (1, 2)]
    assert runs.select_checkpoint(["x > 0"], "y", rows=rows)["chosen"] is None
    assert runs.select_checkpoint(["x > 0"], "-y", rows=rows[:2])["chosen"]["step"] == 2


@pytest.mark.parametrize("text", ["bpb", "bpb = 2", "bpb < two", "bpb<2"])
def test_a_constraint_that_cannot_be_read_is_refused(text):
    with pytest.raises(InputError, match="constraint"):
        runs.select_checkpoint([text], rows=HAND)


def test_checkpoints_of_all_runs(root):
    import xarray as xr

    from workbench.result import save, variable

    steps = {"owned_min": variable("step", [0.0, 1.0], "owned")}
    group = xr.Dataset(steps, coords={"step": [0, 100]})
    save({"routing_audit": group}, root / "b-child" / "diagnosis.nc", provenance={})
    (root / "b-child" / "metrics.jsonl").write_text('{"step": 100, "loss": 2.0}\n')
    rows = runs.list_checkpoints(root)
    assert [(row["run"], row["step"]) for row in rows] == [(("b-child"), s) for s in (0, 100, 200)]
    assert rows[1]["loss"] == 2.0 and rows[1]["routing_audit.owned_min"] == 1.0
    assert rows[2]["bits_per_byte"] == 2.25 and "bits_per_byte" not in rows[1]
    assert all(row[name] == EVALUATION[name] for row in rows for name in runs.COMPARABLE)
    assert rows[0]["budget"].startswith("200 steps")
    found = runs.select_checkpoint(["routing_audit.owned_min >= 1"], "loss", rows=rows)
    assert found["chosen"]["step"] == 100
