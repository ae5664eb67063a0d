"""The panel of an artifact without a browser: who pays, what along, and a culprit is found."""

import shutil

import numpy as np
import pytest
from tiny_runs import quantized

from workbench import explore, quantization
from workbench.evaluation import evaluate, open_run, save_evaluation
from workbench.folder import InputError, runs_root
from workbench.quantization import Codes

PLOTS = ["quantization", "parts", "parts", "parts", "survival", "frontier"]


@pytest.fixture(scope="module")
def run(tiny_run):
    path = shutil.copytree(tiny_run.path, runs_root() / "small", dirs_exist_ok=True)
    opened = open_run(path)
    save_evaluation(opened, *evaluate(opened))
    quantized(path)
    return path


@pytest.fixture(scope="module")
def panel(run):
    return explore.quantization(run.name)


def test_the_saved_diagnosis_is_shown_by_matrix_by_token_and_by_margin(panel):
    assert [view.plot for view in panel.views] == PLOTS
    assert [view.options["name"] for view in panel.views[1:4]] == [
        "rho",
        "cost_by_class",
        "cost_by_decile",
    ]
    assert "bytes costs" in panel.views[0].sentence and "foretold" in panel.views[1].sentence
    assert panel.views[-1].data.setting.values.tolist() == ["first", "second"]
    assert panel.controls["show"].layout.display == "none"
    assert "group('quantization')" in panel.code() and "readings.artifacts" in panel.code()


def test_a_click_marks_a_matrix_and_costs_are_set_along_bytes(panel):
    trace = next(each for each in panel._figures[0].data if each.meta and each.name == "value")
    panel._clicked(trace, type("Points", (), {"point_inds": [1]}), None)
    assert panel.controls["matrix"].value == "block.1.value"
    marked = next(each for each in panel.views[0].figure.data if each.name == "value")
    assert list(marked.marker.size) == [11, 18]
    panel.controls["along"].value = "bytes"
    view = panel.views[0]
    assert "Another bit a weight" in view.sentence
    here = next(each for each in view.figure.data if each.name == "value")
    sizes = view.data.bytes.values[view.data.role.values == "value"]
    np.testing.assert_allclose(here.x, sizes, rtol=1e-3)


def test_the_button_names_a_culprit_of_a_broken_artifact_that_replaced_a_good_one(run, panel):
    said = panel.children[1].children[-1]
    said.click()
    assert "No culprit" in panel._message.value
    path = run / "artifact.wba"
    network, tensors = quantization.open_artifact(path)
    good = path.read_bytes()
    whole = tensors["tok_emb.weight"]
    broken = dict(tensors) | {"tok_emb.weight": Codes(codes=-8 * whole.codes, grid=whole.grid)}
    try:
        quantization.write_artifact(network.config, broken, path)
        again = explore.quantization(run.name)
        assert float(again.views[0].data.cost_together) > float(panel.views[0].data.cost_together)
        again.children[1].children[-1].click()
        assert "Culprit" in again._message.value
    finally:
        path.write_bytes(good)


def test_two_runs_share_their_figures(run):
    panel = explore.quantization(run.name, run.name)
    assert [view.plot for view in panel.views] == PLOTS
    for view in panel.views:
        assert view.data.sizes["run"] == 2 and view.sentence.count(f"{run.name}: ") == 2
        assert view.figure.data
    panel.controls["show"].value = run.name
    assert "run" not in panel.views[0].data.dims


def test_a_run_without_an_artifact_is_refused_with_what_to_do(tiny_run):
    with pytest.raises(InputError, match="python -m workbench quantize RUN"):
        explore.quantization(tiny_run.name)
