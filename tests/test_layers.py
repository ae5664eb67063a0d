"""The stack of the library: imports point strictly down, heavy packages stay behind walls."""

import ast
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr
from repository import PACKAGE, PROJECT, modules, part_of, tracked, walk

from workbench.result import save, variable

RANKS = {
    "folder": 0,
    "result": 0,
    "text": 1,
    "model": 2,
    "evaluation": 3,
    "foreign": 3,
    "quantization": 4,
    "training": 5,
    "diagnostics": 6,
    "findings": 7,
    "readings": 7,
    "runs": 7,
    "plots": 8,
    "execution": 9,
    "explore": 10,
    "__main__": 11,
}
NUMERIC = {"model", "foreign", "evaluation", "quantization", "training", "diagnostics"}
WALLS: dict[str, set[str]] = {  # package: the parts that may import it, at any depth
    "torch": NUMERIC,
    "safetensors.torch": NUMERIC,
    "plotly": {"plots", "explore"},
    "matplotlib": {"plots"},
    "ipywidgets": {"explore"},
    "anywidget": {"explore"},
    "papermill": {"execution"},
    "nbclient": {"execution"},
    "nbconvert": {"execution"},
    "dask": {"execution"},
    "distributed": {"execution"},
    "sentencepiece": {"text"},
    "tokenizers": {"text"},
    "pyarrow": {"text"},
    "transformers": set(),
}
QUICK = {"", "folder", "runs", "__main__"}  # the standard library alone, until a verb is called
OUTSIDE = ("/".join(("..", "shared")), "/".join(("", "work", "shared")))


def imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Yield each imported dotted name and whether it is imported with the module itself."""
    inner = {
        id(node)
        for function in walk(tree, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        at_once = id(node) not in inner
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from ((f"{origin}.{alias.name}", at_once) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else None
            called = node.func.id if isinstance(node.func, ast.Name) else called
            name = node.args[0]
            if called in ("import_module", "__import__") and isinstance(name, ast.Constant):
                yield str(name.value), at_once


def violations(part: str, source: str) -> list[str]:
    """List what a module of `part` does that the stack forbids."""
    tree = ast.parse(source)
    found = []
    for name, at_once in imports(tree):
        first, _, rest = name.partition(".")
        if name.startswith("."):
            found.append(f"relative import {name}")
        elif first == "workbench":
            found += _upward(part, rest.partition(".")[0])
        elif at_once and part in QUICK and first not in sys.stdlib_module_names:
            found.append(f"{part or 'workbench'} imports {first} at once")
        for package, allowed in WALLS.items():
            if f"{name}.".startswith(f"{package}.") and part not in allowed:
                found.append(f"{package} imported in {part}")
    for call in walk(tree, ast.Call):
        named = isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        if named and call.func.id in ("print", "pprint") and part != "__main__":
            found.append(f"line {call.lineno} prints")
    return found


def _upward(part: str, other: str) -> list[str]:
    """Judge an import of one part by another."""
    if other == part or other not in RANKS:  # the package's own names: __version__
        return []
    if part in RANKS and RANKS[other] < RANKS[part]:
        return []
    return [f"{part or 'workbench'} imports {other}"]


@pytest.mark.parametrize("path", modules(), ids=lambda path: "-".join(path.parts[-2:]))
def test_module_keeps_to_the_stack(path: Path):
    part = part_of(path)
    assert part == "" or part in RANKS, "every module belongs to a part of design.md"
    assert len(path.relative_to(PACKAGE).parts) <= 2, "never deeper than package/part/module"
    assert violations(part, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("part", "source", "expected"),
    [
        ("text", "from workbench.model import network", "text imports model"),
        ("text", "from workbench import folder, model", "text imports model"),
        ("text", "import workbench.model.network as m", "text imports model"),
        ("runs", "def f():\n    from workbench import readings", "runs imports readings"),
        ("result", "from workbench.folder import digest", "result imports folder"),
        ("model", "import importlib\nimportlib.import_module('workbench.runs')", "model imports"),
        ("", "from workbench import folder", "workbench imports folder"),
        ("text", "from .shards import read", "relative import .shards.read"),
        ("plots", "def f():\n    import torch.nn as nn", "torch imported in plots"),
        ("text", "from safetensors import torch", "safetensors.torch imported in text"),
        ("training", "from plotly import graph_objects", "plotly imported in training"),
        ("model", "import transformers", "transformers imported in model"),
        ("runs", "import xarray as xr", "runs imports xarray at once"),
        ("", "import numpy", "workbench imports numpy at once"),
        ("training", "def f(x):\n    print(x)", "line 2 prints"),
    ],
)
def test_planted_violation_is_found(part: str, source: str, expected: str):
    assert [each for each in violations(part, source) if each.startswith(expected)]


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("training", "import torch\nfrom workbench.model import network"),
        ("runs", "def f():\n    import xarray\n    from workbench import result"),
        ("text", "import sentencepiece\nfrom workbench.text.tokens import Tokens"),
        ("plots", "import torchlike\nfrom plotly.subplots import make_subplots"),
        ("__main__", "print(1)\nfrom workbench import __version__"),
        ("model", "from safetensors.torch import save_file"),
    ],
)
def test_healthy_twin_is_clear(part: str, source: str):
    assert violations(part, source) == []


def test_no_file_names_what_lies_outside_the_project():
    for path in tracked():
        content = (PROJECT / path).read_bytes().decode("utf-8", errors="replace")
        assert not [name for name in OUTSIDE if name in content], path


def command(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter in the project."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT,
        env={**os.environ, **extra},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_help_answers_in_half_a_second():
    quickest = float("inf")
    for _ in range(15):  # other processes share the cores: the best try is what it costs
        start = time.perf_counter()
        done = command("-m", "workbench", "--help")
        quickest = min(quickest, time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
        if quickest < 0.5:
            return
    pytest.fail(f"--help took {quickest:.2f} s at best")


@pytest.mark.parametrize("verb", ["--help", "runs", "runs --tree", "runs --format json"])
def test_quick_verbs_import_nothing_heavy(verb: str, tmp_path: Path):
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    record = {"schema_version": 1, "name": "first", "status": "finished"}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    done = command(
        "-X", "importtime", "-m", "workbench", *verb.split(), WORKBENCH_DATA=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr[-2000:]
    imported = set(re.findall(r"\|\s+([\w.]+)$", done.stderr, flags=re.MULTILINE))
    assert "argparse" in imported  # the listing was read
    assert not imported & {"torch", "xarray", "numpy", "pandas", "plotly", "scipy"}


WITHOUT_TORCH = '''
import sys
from pathlib import Path

class Blocked:
    """Finder that has no torch."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, Blocked())
from workbench import plots, result

tree = result.open_tree(Path(sys.argv[1]))
for name, group in tree.children.items():
    figure = getattr(plots, name)(group.to_dataset())
    assert len(figure.data) > 0, name
    print(name)
assert "torch" not in sys.modules
'''


def test_saved_results_open_and_plot_without_torch(tmp_path: Path):
    visits = {"visit": range(3), "block": ("visit", range(3)), "step": [0, 50]}
    gate = [[0.0, 0.4, 0.5], [0.0, 0.3, 0.6]]
    named = {
        "alpha": "learned gate",
        "alpha_effective": "mix applied",
        "contribution": "projection",
        "contribution_share": "share of the earlier value",
        "gradient_share": "share of the gradient",
    }
    value_residual = xr.Dataset(
        {name: variable(("step", "visit"), gate, about) for name, about in named.items()},
        coords=visits,
    )
    size = [128, 128, 128]
    names = ("effective_rank", "effective_rank_energy", "participation_ratio", "stable_rank")
    names += ("numerical_rank", "condition_number", "effective_rank_gaussian")
    ranks = {name: variable("matrix", [80.0, 90.0, 100.0], name) for name in names}
    ranks["effective_rank_ratio"] = variable("matrix", [0.8, 0.9, 0.95], "ratio")
    coords = {
        "matrix": [f"blocks.{block}.query" for block in range(3)],
        "block": ("matrix", range(3)),
        "role": ("matrix", ["query"] * 3),
        "rows": ("matrix", size),
        "columns": ("matrix", size),
    }
    groups = {"value_residual": value_residual, "effective_rank": xr.Dataset(ranks, coords=coords)}
    path = tmp_path / "diagnosis.nc"
    save(groups, path, provenance={"seed": 1})
    done = command("-c", WITHOUT_TORCH, str(path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == list(groups)
