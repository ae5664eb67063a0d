"""Panels without a browser: choose, and what is shown changes."""

import shutil

import nbformat
import pytest
from repository import PROJECT

from workbench import explore
from workbench.execution import run_notebook
from workbench.folder import InputError, RunFolder, runs_root
from workbench.plots.report import open_diagnosis

PLOTLY = "application/vnd.plotly.v1+json"


@pytest.fixture
def two_runs(tiny_run, monkeypatch, tmp_path):
    """Put two copies of the tiny run into a data folder of their own."""
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    for name in ("one", "two"):
        shutil.copytree(tiny_run.path, tmp_path / "runs" / name)
    RunFolder(tmp_path / "runs" / "two").update(parameters=7, data={"name": "<b>hostile</b>"})
    RunFolder(tmp_path / "runs" / "one").update(status="finished")  # the latest comes first


def test_choosing_a_run_shows_its_facts(two_runs):
    chooser = explore.choose_run()
    assert [value for _, value in chooser.menu.options] == ["one", "two"]
    assert chooser.folder.name == "one"
    before = chooser.facts.value
    chooser.menu.value = "two"
    assert chooser.folder.name == "two" and chooser.facts.value != before
    assert "&lt;b&gt;hostile" in chooser.facts.value and "<b>hostile" not in chooser.facts.value
    assert explore.choose_run("two").folder.name == "two"


def test_a_run_is_probed_when_first_asked(two_runs):
    chooser = explore.choose_run("one")
    assert not (chooser.folder.path / "diagnosis.nc").exists()
    assert chooser.reading("self_test").endswith("self-tests passed.")
    assert (chooser.folder.path / "diagnosis.nc").exists()
    assert chooser.figure("token_loss").data
    assert chooser.figure("routing_audit") is None, "a text has no profiles"
    assert "Not measured: routing_audit: the corpus has no profiles" in chooser.reading(
        "routing_audit"
    )


def test_without_runs_a_checkpoint_can_be_imported_and_the_rest_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    chooser = explore.choose_run()
    assert "import a checkpoint" in chooser.facts.value and not chooser.button.disabled
    with pytest.raises(InputError, match="make demo"):
        chooser.reading("token_loss")


def test_a_run_that_is_not_there_or_not_done(two_runs):
    with pytest.raises(InputError, match="Nearest: one"):
        explore.choose_run("on")
    RunFolder(runs_root() / "two").update(status="planned")
    with pytest.raises(InputError, match="finished or stopped"):
        explore.choose_run("two")


def test_start_here_runs_from_top_to_bottom(two_runs, tmp_path):
    executed = tmp_path / "start_here.ipynb"
    run_notebook(PROJECT / "notebooks" / "explore" / "start_here.ipynb", executed, {})
    cells = nbformat.read(executed, as_version=4).cells
    shown = [
        kind
        for cell in cells
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
        if kind == PLOTLY
    ]
    assert len(shown) == 5, "training and the four probes that apply to a text"


def test_a_diagnosis_of_other_weights_is_measured_again(two_runs):
    chooser = explore.choose_run("one")
    chooser.diagnosis()
    path = chooser.folder.path
    before = (path / "diagnosis.nc").stat().st_mtime_ns
    chooser.diagnosis()
    assert (path / "diagnosis.nc").stat().st_mtime_ns == before, "a good one is only read"
    last = sorted((path / "checkpoints").glob("step-*.safetensors"))[0]
    shutil.copy(last, path / "model.safetensors")
    with pytest.raises(InputError, match="other weights"):
        open_diagnosis(chooser.folder)
    chooser.diagnosis()
    assert (path / "diagnosis.nc").stat().st_mtime_ns > before
    open_diagnosis(chooser.folder)
