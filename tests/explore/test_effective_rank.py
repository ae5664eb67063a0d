"""The panel on a run of twelve steps: a matrix is opened, cut, and an experiment written."""

import json
import shutil

import numpy as np
import pytest

from workbench import explore
from workbench.folder import runs_root


@pytest.fixture(scope="module")
def run(tiny_run):
    """Copy the run, because its diagnosis and an experiment are written into it."""
    path = runs_root() / "ranked"
    shutil.copytree(tiny_run.path, path, dirs_exist_ok=True)
    return path


@pytest.fixture(scope="module")
def panel(run):
    return explore.effective_rank(run.name)


def plots_of(panel):
    return [view.plot for view in panel.views]


def test_it_opens_on_the_lowest_matrix_without_cutting_it(panel):
    assert plots_of(panel) == ["effective_rank", "rank_corners", "embedding", "spectrum"]
    activation = panel.views[0].data.activation
    lowest = activation.matrix.values[int(np.nanargmin(activation))]
    assert panel.controls["matrix"].value == lowest
    assert panel.controls["show"].layout.display == "none"


def test_measures_fill_the_cells(panel):
    for measure in ("effective_rank_ratio", "initial", "alpha", "activation"):
        panel.controls["measure"].value = measure
        view = panel.views[0]
        cells, point = view.figure.data[0], view.data.sel(matrix="block.1.query")
        expected = float(point[measure])
        row, column = list(cells.y).index("block 1"), list(cells.x).index("query")
        shown = cells.z[row][column]
        assert shown is None if np.isnan(expected) else shown == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("view", [0, 1])
def test_clicks_set_the_matrix(panel, view):
    trace = next(each for each in panel._figures[view].data if each.meta)
    at = (1, 2) if view == 0 else 1
    names = np.array(trace.customdata)
    panel._clicked(trace, type("Points", (), {"point_inds": [at]}), None)
    assert panel.controls["matrix"].value == names[at]
    assert panel.views[3].data.matrix.item() == names[at]


def test_a_slider_cuts_the_matrix_and_marks_the_chosen_rank(panel):
    panel.controls["matrix"].value = "block.1.value"
    panel.controls["keep"].value = 3
    view = panel.views[-1]
    usual = round(float(panel.views[3].data.effective_rank.isel(step=-1)))
    assert view.plot == "truncation" and usual in view.data.setting
    assert view.data.setting.values.tolist() == sorted({2, 3, 4, usual})
    assert list(view.figure.data[0].marker.size)[:3] == [7, 14, 7]
    assert f"effective: {usual}" in panel.controls["keep"].description
    panel.controls["keep"].value = 16
    assert panel.table.attrs["chosen"] == 8, "no more than the matrix has"
    assert set(panel.table.setting.values) == {2, 3, 4, usual, 8}, "what was tried stays"
    panel.controls["matrix"].value = "block.0.value"
    rank = int(panel.controls["keep"].value)
    assert (
        rank == panel.table.attrs["chosen"] == round(float(panel.views[3].data.effective_rank[-1]))
    )
    assert "truncation" in panel.code() and "rank_evidence" in panel.code()
    panel.controls["keep"].value = 0
    assert len(panel.views) == 4


@pytest.mark.parametrize(
    ("matrix", "change", "changed", "missing"),
    [
        ("block.1.value", "factor", {"factor": {"block.1.value": 5}}, ["factor"]),
        ("block.1.query", "drop", {"n_layer": 1}, []),
        ("block.1.query", "share", {"share_blocks": [0, 1]}, ["share_blocks"]),
        ("block.1.key", "share", {"n_kv_head": 1}, []),
        ("embedding", "share", {"tie_embeddings": True}, []),
    ],
)
def test_the_button_writes_an_experiment_and_says_what_train_knows(
    panel, run, matrix, change, changed, missing
):
    controls = {"matrix": matrix, "change": change, "keep": 5 if change == "factor" else 0}
    for name, value in controls.items():
        panel.controls[name].value = value
    panel.children[1].children[-1].click()
    path = run / "experiments" / f"effective-rank-{change}-{matrix}.yaml"
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["changed"] == changed and written["not_yet_supported"] == missing
    assert written["parameters"]["model"].items() >= changed.items()
    assert all("." in said for said in written["evidence"]) and len(written["evidence"]) >= 3
    assert ("does not know" in panel._message.value) == bool(missing)
    assert path.name in panel._message.value


def test_two_runs_are_subtracted_first(run):
    panel = explore.effective_rank(run.name, run.name)
    assert panel.selection["show"] == "difference"
    assert panel.views[0].data.attrs["compared"] == 1
    assert np.nanmax(np.abs(panel.views[0].data.cost)) == 0
    assert "another seed" in panel.views[1].sentence
    panel.controls["keep"].value = 3
    for view in panel.views[2:]:
        assert view.data.sizes["run"] == 2 and view.sentence.count(f"{run.name}: ") == 2


def test_a_diagnosis_from_before_spectra_were_kept_is_made_anew(run, monkeypatch):
    def old(subject, name):
        found = group(subject, name)
        first = "seen" not in vars(subject)
        vars(subject)["seen"] = True
        return found[["effective_rank", "effective_rank_ratio"]] if first else found

    group = explore.Subject.group
    monkeypatch.setattr(explore.Subject, "group", old)
    assert "singular_value" in explore.effective_rank(run.name).views[3].data
