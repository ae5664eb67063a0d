"""Every explore notebook runs from top to bottom, on text and on a closed world."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from repository import PROJECT
from tiny_runs import quantized

from workbench.evaluation import evaluate, open_run, save_evaluation
from workbench.execution import write_clean

PAGES = sorted((PROJECT / "notebooks" / "explore").glob("*.ipynb"))
WORLDLY = ("routing_audit", "logit_prior", "start_here", "intervention", "effective_rank")
WORLDLY += ("quantization",)
OUTSIDE = ("cdn.", "https://cdn", "unpkg", "jsdelivr")


@pytest.fixture(scope="module")
def runs(tiny_run, tiny_world_run, tmp_path_factory):
    """A data folder with two runs on text and one on the closed world."""
    root = tmp_path_factory.mktemp("pages")
    for name in ("one", "two"):
        folder = shutil.copytree(tiny_run.path, root / "runs" / name)
        run = open_run(folder)
        save_evaluation(run, *evaluate(run))
    shutil.copytree(tiny_world_run.path, root / "runs" / "world")
    for name in ("one", "two", "world"):
        quantized(root / "runs" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(root))
        yield root


@pytest.fixture(scope="module")
def kernel(runs):
    """One process for all pages, emptied before each: imports alone take ten seconds."""
    manager = KernelManager()
    manager.start_kernel()
    yield manager
    manager.shutdown_kernel(now=True)


def execute(page, executed, given, kernel):
    """Run a page with parameters, as papermill writes them into it."""
    notebook = parameterize_notebook(load_notebook_node(str(page)), given, language="python")
    emptied = nbformat.v4.new_code_cell("%reset -f")
    notebook.cells.insert(0, emptied)
    client = NotebookClient(notebook, km=kernel, timeout=300)
    client.execute()
    client.kc.stop_channels()
    notebook.cells.remove(emptied)
    nbformat.write(notebook, executed)
    write_clean(executed, executed)


CASES = [(page, "one", other) for page in PAGES for other in ("", "two")]
CASES += [(page, "world", "") for page in PAGES if page.stem in WORLDLY]


@pytest.mark.parametrize(
    ("page", "run", "other"), CASES, ids=lambda each: getattr(each, "stem", each or "alone")
)
def test_page_runs_and_stays_small(page: Path, run: str, other: str, kernel, tmp_path: Path):
    executed = tmp_path / page.name
    given = {"run": run, "other": other} if page.stem != "start_here" else {"run": run}
    execute(page, executed, given, kernel)
    notebook = nbformat.read(executed, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [each for each in outputs if each.output_type == "error"]
    drawn = [each for each in outputs if "image/svg+xml" in each.get("data", {})]
    assert drawn, "something to see where no script runs"
    assert all("text/plain" in each.data for each in drawn)
    assert executed.stat().st_size < 2**20
    assert not [
        word for word in OUTSIDE if word in json.dumps([each.get("data") for each in outputs])
    ]
