import csv
import json

import pytest

from workbench.folder import InputError
from workbench.text.profiles import read_profiles
from workbench.text.world import Record

ROWS = [
    {"prompt": "Who owns the cup?", "target": "Mia", "profile": "owner", "id": "a"},
    {"prompt": "What colour is the cup? It is ", "target": " red.", "profile": "colour", "id": "b"},
    {"prompt": 'Who owns the "big, old" pot?', "target": "Leo", "profile": "owner", "id": "c"},
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path, rows, encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_both_formats_read_the_same(tmp_path, encoding):
    from_json = read_profiles(write_jsonl(tmp_path / "table.jsonl", ROWS))
    from_csv = read_profiles(write_csv(tmp_path / "table.csv", ROWS, encoding))
    assert from_json == from_csv
    assert list(from_json) == ["owner", "colour"]
    assert from_json["colour"] == (
        Record(
            id="b",
            prompt="What colour is the cup? It is",
            target=" red",
            profile="colour",
            source="table:colour",
        ),
    )
    assert [each.target for each in from_json["owner"]] == [" Mia", " Leo"]


def test_profile_and_id_have_defaults(tmp_path):
    rows = [{"prompt": "a b", "target": "c"}, {"prompt": "a d", "target": "e"}]
    (group,) = read_profiles(write_jsonl(tmp_path / "mine.jsonl", rows)).values()
    assert [(each.profile, each.id) for each in group] == [("mine", "mine-1"), ("mine", "mine-2")]
    (group,) = read_profiles(write_csv(tmp_path / "mine.csv", rows)).values()
    assert [each.profile for each in group] == ["mine", "mine"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "no file"),
        ("table.txt", "prompt target", ".jsonl or .csv"),
        ("empty.jsonl", "", "at least one record"),
        ("broken.jsonl", '{"prompt": "a", "target": "b"}\n{"prompt":', "line 2"),
        ("list.jsonl", '["a", "b"]\n', "one JSON object"),
        ("missing.jsonl", '{"prompt": "a"}\n', "'target'"),
        ("blank.jsonl", '{"prompt": " ", "target": "b"}\n', "'prompt'"),
        ("dot.jsonl", '{"prompt": "a", "target": "."}\n', "'target'"),
        ("number.jsonl", '{"prompt": "a", "target": 3}\n', "text in field 'target'"),
        ("header.csv", "question,answer\na,b\n", "question"),
        ("twice.csv", "prompt,target,id\na,b,x\nc,d,x\n", "line 3"),
        ("bytes.csv", b"prompt,target\na,\xff\n", "UTF-8"),
        ("bytes.jsonl", b'{"prompt": "\xff"}\n', "UTF-8"),
        ("quote.csv", 'prompt,target\n"a,b\n', "UTF-8|quote|row|unexpected"),
    ],
)
def test_bad_tables_are_refused_by_name(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        read_profiles(path)
    assert name in str(caught.value)
