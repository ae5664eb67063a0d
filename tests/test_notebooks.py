"""Notebooks are stripped and short; reports are executed, and nbval sees a wrong digit in one."""

import ast
import getpass
import io
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from repository import PROJECT, walk

NOTEBOOKS = sorted((PROJECT / "notebooks").rglob("*.ipynb"))
NOTEBOOKS = [path for path in NOTEBOOKS if ".ipynb_checkpoints" not in path.parts]
EXPERIMENTS = [path for path in NOTEBOOKS if path.parent.name == "experiments"]
REPORTS = sorted((PROJECT / "reports").glob("*.ipynb"))
CEILING, MEDIAN, REPORT_BYTES = 25, 8, 2**20
PLOTLY = "application/vnd.plotly.v1+json"
ABSOLUTE = re.compile(
    r"(?<![\w.:/])/(?:home|root|Users|tmp|work|var|opt|usr|mnt|srv)/\w|[A-Z]:\\\\"
)
COMMON_NAMES = {"root", "user", "runner", "localhost", "test"}


def stem(path: Path) -> str:
    """Name a test case."""
    return path.stem


def cells(path: Path) -> list[Any]:
    """Read the code cells of a notebook."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_notebooks_and_reports():
    assert {path.parent.name for path in NOTEBOOKS} == {"experiments", "explore"}
    assert REPORTS


@pytest.mark.parametrize("path", [*NOTEBOOKS, *REPORTS], ids=stem)
def test_is_valid_with_a_distinct_id_for_each_cell(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    ids = [cell.get("id") for cell in notebook.cells]
    assert all(ids) and len(set(ids)) == len(ids)
    assert "widgets" not in notebook.metadata
    assert notebook.cells[0].cell_type == "markdown", "opens with its question"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=stem)
def test_notebook_is_stripped(path: Path):
    for cell in cells(path):
        assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.parametrize("path", [*NOTEBOOKS, *REPORTS], ids=stem)
def test_cells_are_short_and_only_call(path: Path):
    sources = [cell.source for cell in cells(path)]
    lengths = [len(source.splitlines()) for source in sources]
    assert max(lengths) <= CEILING and statistics.median(lengths) <= MEDIAN
    forbidden = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Try)
    for source in sources:
        assert [node for node in walk(ast.parse(source), *forbidden)] == [], source


def faults(source: str) -> list[str]:
    """List statements of a parameters cell that are not ``name: type = literal  # meaning``."""
    tokens = tokenize.generate_tokens(io.StringIO(source + "\n").readline)
    commented = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    found = []
    for statement in ast.parse(source).body:
        explained = bool(commented & {statement.lineno, statement.end_lineno})
        if not (isinstance(statement, ast.AnnAssign) and statement.value and explained):
            found.append(ast.unparse(statement))
            continue
        try:
            ast.literal_eval(statement.value)
        except ValueError:  # papermill injects literals only
            found.append(ast.unparse(statement))
    return found


@pytest.mark.parametrize("path", EXPERIMENTS, ids=stem)
def test_experiment_declares_its_parameters(path: Path):
    tagged = [cell for cell in cells(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert faults(tagged[0].source) == []


@pytest.mark.parametrize(
    ("line", "is_good"),
    [
        ("steps: int = 200  # updates", True),
        ("model: dict = {\n    'n_layer': 2,\n}  # overrides", True),
        ("steps = 200  # updates", False),
        ("steps: int = 200", False),
        ("steps: int = max(1, 2)  # updates", False),
        ("import torch  # heavy", False),
    ],
)
def test_parameters_checker_sees_planted_faults(line: str, is_good: bool):
    assert (faults(line) == []) == is_good


@pytest.mark.parametrize("path", REPORTS, ids=stem)
def test_report_is_executed_once_from_top_to_bottom(path: Path):
    counts = [cell.execution_count for cell in cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in cells(path) for output in cell.outputs]
    assert any(output.output_type == "stream" for output in outputs), "has checked text"
    assert not any(output.output_type == "error" for output in outputs)
    assert any(PLOTLY in output.get("data", {}) for output in outputs), "has a checked figure"
    assert path.stat().st_size < REPORT_BYTES


@pytest.mark.parametrize("path", REPORTS, ids=stem)
def test_report_names_no_machine_and_no_person(path: Path):
    content = path.read_text(encoding="utf-8")
    assert ABSOLUTE.search(content) is None
    for name in {getpass.getuser(), socket.gethostname()} - COMMON_NAMES:
        assert re.search(rf"\b{re.escape(name)}\b", content) is None


def test_absolute_path_is_found():
    assert ABSOLUTE.search('"written to /home/ada/x.nc"')
    assert ABSOLUTE.search(r'"C:\\Users"')
    assert not ABSOLUTE.search('"https://example.org/home/x, docs/tmp/y"')


def plant_in_text(notebook: dict[str, Any]) -> None:
    """Change the last digit of the first printed number."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            text = "".join(output.get("text", []))
            if found := re.search(r"\d(?!.*\d)", text, flags=re.DOTALL):
                wrong = str((int(found[0]) + 1) % 10)
                output["text"] = text[: found.start()] + wrong + text[found.end() :]
                return
    raise AssertionError("no printed number")


def plant_in_figure(notebook: dict[str, Any]) -> None:
    """Change the first number that a figure draws."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            for trace in output.get("data", {}).get(PLOTLY, {}).get("data", []):
                for values in (trace.get("y"), trace.get("x")):
                    if isinstance(values, list) and isinstance(values[0], int | float):
                        values[0] += 0.001
                        return
    raise AssertionError("no figure drawn from a list of numbers")


def leave(notebook: dict[str, Any]) -> None:
    """Plant nothing."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "status"),
    [(leave, 0), (plant_in_text, 1), (plant_in_figure, 1)],
    ids=["healthy", "text", "figure"],
)
def test_nbval_sees_a_wrong_digit(
    plant: Callable[[dict[str, Any]], None], status: int, tmp_path: Path
):
    """The smallest report stands for all: the same machinery compares each of them."""
    report = min(REPORTS, key=lambda path: path.stat().st_size)
    copies = tmp_path / "reports"
    shutil.copytree(report.parent, copies, ignore=shutil.ignore_patterns("rendered", "*.html"))
    notebook = json.loads(report.read_text(encoding="utf-8"))
    plant(notebook)
    (copies / report.name).write_text(json.dumps(notebook), encoding="utf-8")
    command = "-m pytest -q --nbval --nbval-current-env -p no:cacheprovider -p no:xdist --rootdir ."
    done = subprocess.run(
        [sys.executable, *command.split(), f"reports/{report.name}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == status, done.stdout[-3000:] + done.stderr[-1000:]
    assert ("mismatch" in done.stdout) == bool(status)
