"""The contract is whole, cites tests that exist, and its generated page is of this contract."""

import ast
import re
import subprocess
import sys

import pytest
from repository import PROJECT
from scoreboard import PAGE, cited, contract, outcomes, page, status_of

WHOLE = contract()
CLAIMS = WHOLE["claim"]
FALSIFIERS = {"003", "004", "005", "006", "009", "010", "CUDA-001"}


def functions(path):
    """Name the test functions of a module; an absent module has none."""
    file = PROJECT / path
    tree = ast.parse(file.read_text(encoding="utf-8") if file.is_file() else "")
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def faults(claims):
    """List what is wrong with the form of claims."""
    found = []
    for claim in claims:
        if set(claim) != {"id", "statement", "tests", "if_fails"}:
            found.append(f"keys of {claim.get('id')}")
            continue
        for key in ("id", "statement", "if_fails"):
            text = claim[key]
            if not isinstance(text, str) or not text.strip() or re.search(r"[|\n]", text):
                found.append(f"{key} of {claim['id']}")
        if not isinstance(claim["tests"], list) or len(set(claim["tests"])) != len(claim["tests"]):
            found.append(f"tests of {claim['id']}")
    ids = [claim.get("id") for claim in claims]
    return found + [f"{each} twice" for each in sorted({i for i in ids if ids.count(i) > 1})]


def absent(claims):
    """List the cited tests that are nowhere."""
    split = [test.partition("::") for test in cited(claims)]
    there = {path: functions(path) for path, _, _ in split}
    return ["::".join((path, name)) for path, _, name in split if name not in there[path]]


def test_every_claim_is_whole():
    assert faults(CLAIMS) == []
    assert {claim["id"] for claim in CLAIMS} == {f"P{n}" for n in range(1, 28)} | FALSIFIERS
    assert set(WHOLE) == {"statuses", "claim"}
    assert list(WHOLE["statuses"]) == ["DISCHARGED", "REFUTED", "SKIPPED", "UNTESTED"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id": "P2"}, "P2 twice"),
        ({"statement": " "}, "statement of P1"),
        ({"if_fails": "a | b"}, "if_fails of P1"),
        ({"tests": "tests/a.py::test_a"}, "tests of P1"),
        ({"status": "DISCHARGED"}, "keys of P1"),
    ],
)
def test_a_malformed_claim_is_seen(change, told):
    assert faults([CLAIMS[0] | change, *CLAIMS[1:]]) == [told]


def test_every_cited_test_exists():
    assert absent(CLAIMS) == []
    planted = ["tests/foreign/test_contract.py::test_nowhere", "tests/nowhere.py::test_it"]
    assert absent([*CLAIMS, {"tests": planted}]) == planted


def test_the_status_follows_from_the_tests(tmp_path):
    """One failed, skipped or missing parameter of one test decides for its claim."""
    (tmp_path / "test_planted.py").write_text(
        "import pytest\n\n\n"
        '@pytest.mark.parametrize("x", [1, 2])\ndef test_good(x):\n    pass\n\n\n'
        '@pytest.mark.parametrize("x", [1, 2])\ndef test_bad(x):\n    assert x == 1\n\n\n'
        '@pytest.mark.parametrize("x", [1, 2])\ndef test_left_out(x):\n'
        '    if x == 1:\n        pytest.skip("")\n\n\n'
        "@pytest.fixture\ndef broken():\n    raise OSError\n\n\ndef test_error(broken):\n    pass\n"
    )
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, f"--junit-xml={report}"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 1
    found = {name.split("::")[1]: kinds for name, kinds in outcomes(report).items()}
    told = {
        (): "UNTESTED",
        ("test_good",): "DISCHARGED",
        ("test_good", "test_left_out"): "SKIPPED",
        ("test_good", "test_left_out", "test_bad"): "REFUTED",
        ("test_error",): "REFUTED",
        ("test_good", "test_gone"): "REFUTED",
    }
    assert {tests: status_of(list(tests), found) for tests in told} == told


def test_the_page_is_of_this_contract():
    """Only the statuses may be older than the contract; after a change: make contract."""
    text = PAGE.read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    statuses = {row[0].removeprefix("| "): row[2] for row in rows}
    assert list(statuses) == [claim["id"] for claim in CLAIMS]
    assert page(WHOLE, statuses) == text
    assert "REFUTED" not in statuses.values()
    untested = {claim["id"] for claim in CLAIMS if not claim["tests"]}
    assert {each for each, status in statuses.items() if status == "UNTESTED"} == untested
