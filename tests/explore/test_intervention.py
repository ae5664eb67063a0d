"""The intervention panel without a browser: from the saved map to who pays for a change."""

import shutil

import numpy as np
import pytest
import xarray as xr

from workbench import diagnostics, evaluation, explore, result
from workbench.explore import Subject
from workbench.folder import InputError
from workbench.model import load_model, save_state


@pytest.fixture(scope="module")
def pair(tiny_run):
    """A saved diagnosis of a run, and of its copy with another scale."""
    copy = shutil.copytree(tiny_run.path, tiny_run.path.with_name("tiny-other"))
    model = load_model(copy)
    model.blocks[0].mlp_scale.data *= 1.3
    save_state(model, copy / "model.safetensors")
    for path in (tiny_run.path, copy):
        run = evaluation.open_run(path)
        found = diagnostics.diagnose(run, only=["ablation"])
        diagnostics.save_diagnosis(run, found)
    yield tiny_run.name, copy.name
    shutil.rmtree(copy)
    (tiny_run.path / "diagnosis.nc").unlink()


def run_code(text):
    """Run the calls that a panel prints; return the value of the last."""
    *calls, last = text.splitlines()
    names = {"diagnostics": diagnostics, "evaluation": evaluation, "result": result}
    exec("\n".join(calls), names)
    return eval(last, names)


def test_the_saved_map_comes_first_without_the_model(pair, monkeypatch):
    monkeypatch.setattr(Subject, "sample", property(lambda self: pytest.fail("model loaded")))
    panel = explore.intervention(*pair)
    assert [view.plot for view in panel.views] == ["ablation"]
    assert "visit.1.head.3" in panel.controls["target"].options


def test_a_click_chooses_what_is_changed(pair):
    panel = explore.intervention(pair[0])
    trace = panel._figures[0].data[0]
    panel._clicked(trace, type("Points", (), {"point_inds": [(1, 6)]}), None)
    assert panel.controls["target"].value == trace.customdata[1][6] == "visit.1.head.0"
    assert [view.plot for view in panel.views] == ["ablation", "intervention_curve", "intervention"]
    assert panel.views[0].figure.layout.shapes[0].line.dash == "solid", "the chosen cell is framed"
    assert "value_residual.alpha.0" in panel.controls["target"].options
    saved = panel.views[0].data.head_cost.sel(visit=1, head=0)
    assert float(panel.table.cost[0]) == pytest.approx(float(saved), abs=1e-12)


def test_how_and_factor_change_only_who_pays(pair):
    panel = explore.intervention(pair[0])
    panel.controls["target"].value = "visit.0.block"
    before = panel.views[1]
    zero = float(panel.views[0].data.zero_cost.sel(visit=0, part="block"))
    panel.controls["how"].value = "zero"
    assert float(panel.table.cost[0]) == pytest.approx(zero, abs=1e-12)
    assert float(before.data.cost[0]) == pytest.approx(zero, abs=1e-12), "factor 0 is zero"
    panel.controls["how"].value = "scale"
    panel.controls["factor"].value = 1.0
    assert float(panel.table.cost[0]) == 0
    assert panel.views[1] is before, "the curve is kept"


def test_code_gives_the_numbers(pair):
    panel = explore.intervention(*pair)
    panel.controls["target"].value = "visit.1.value"
    for show in ("difference", *pair):
        panel.controls["show"].value = show
        for view in panel.views:
            xr.testing.assert_allclose(run_code(view.code), view.data, atol=1e-9)


def test_two_runs_are_shown_as_their_difference(pair):
    panel = explore.intervention(*pair)
    assert panel.controls["show"].value == "difference"
    assert "another seed" in panel.views[0].sentence
    panel.controls["target"].value = "visit.0.feedforward"
    assert panel.table.attrs["compared"] == 1
    costs = []
    for name in pair:
        panel.controls["show"].value = name
        costs.append(panel.table.cost.values)
        assert "overstates" in panel.views[0].sentence
    panel.controls["show"].value = "difference"
    np.testing.assert_allclose(panel.table.cost.values, costs[0] - costs[1], atol=1e-9)


def test_two_parts_of_one_run_are_compared_on_the_same_text(pair):
    panel = explore.intervention(pair[0])
    panel.controls["target"].value = "visit.0.block"
    alone = float(panel.table.cost[0])
    panel.controls["against"].value = "visit.1.block"
    assert f"visit.0.block of {pair[0]} less visit.1.block of {pair[0]}" in panel.views[2].sentence
    saved = panel.views[0].data
    costs = [float(saved.cost.sel(visit=at, part="block")) for at in (0, 1)]
    assert alone == pytest.approx(costs[0])
    assert float(panel.table.cost[0]) == pytest.approx(costs[0] - costs[1], abs=1e-12)
    bits = saved.cost_by_group.sel(part="block")
    error = result.grouped_ratio((bits[0] - bits[1]).values, saved.bytes_by_group.values)[1]
    assert float(panel.table.cost_standard_error[0]) == pytest.approx(float(error))
    xr.testing.assert_allclose(run_code(panel.views[2].code), panel.table, atol=1e-12)


def test_an_unknown_target_is_said_on_the_panel(pair):
    panel = explore.intervention(pair[0])
    with pytest.raises(InputError, match=r"visit\.0\.value"):
        panel.controls["target"].value = "visit.0.valeu"
    assert "visit.0.value" in panel._message.value
    panel.controls["target"].value = "visit.0.value"
    assert panel._message.value == "" and len(panel.views) == 3
