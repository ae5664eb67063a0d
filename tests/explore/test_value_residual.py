"""The panel without a browser: choose a visit, drag its mix, compare runs, write the experiment."""

import shlex
import shutil

import numpy as np
import pytest
import yaml

from workbench import explore, text
from workbench.execution import parse_parameters
from workbench.folder import PROJECT
from workbench.model import preset
from workbench.training import train_config

NOTEBOOK = PROJECT / "notebooks" / "experiments" / "train.ipynb"


@pytest.fixture(scope="module")
def runs(tiny_run, tmp_path_factory):
    """Two copies of the tiny run in a data folder of their own, probed once."""
    root = tmp_path_factory.mktemp("value_residual")
    shutil.copytree(tiny_run.path, root / "runs" / "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(root))
        for name in ("value_residual", "mixing"):
            explore.Subject("one").group(name)
        shutil.copytree(root / "runs" / "one", root / "runs" / "two")
        yield root / "runs"


def test_first_views_come_from_the_saved_diagnosis_and_a_click_opens_a_visit(runs):
    panel = explore.value_residual("one")
    assert [view.plot for view in panel.views] == ["value_residual", "mixing"]
    group = explore.Subject("one").group("value_residual")
    assert "value_residual" in panel.views[0].code and group.decision[1].item() in str(
        panel.controls["visit"].options
    )
    bar = next(trace for trace in panel._figures[0].data if trace.type == "bar")
    panel._clicked(bar, type("Points", (), {"point_inds": [0]}), None)
    assert panel.controls["visit"].value == 1
    curve = panel.views[-1]
    assert curve.plot == "alpha_curve" and curve.data.attrs["visit"] == 1
    assert "Visit 1" in curve.sentence and "mean instead costs" in curve.sentence
    assert float(curve.data.cost.sel(setting=0)) == pytest.approx(
        float(group.zero_cost.sel(visit=1)), abs=1e-6
    )


def test_a_dragged_mix_is_measured(runs):
    panel = explore.value_residual("one")
    panel.controls["visit"].value = 1
    panel.controls["mix"].value = 0.0
    data = panel.table
    assert float(data.asked_cost) == pytest.approx(float(data.cost.sel(setting=0)), abs=1e-6)
    star = next(trace for trace in panel._figures[2].data if trace.name == "asked for")
    assert star.x == (0.0,)


def test_two_runs_show_their_difference_first(runs):
    panel = explore.value_residual("one", "two")
    assert panel.controls["show"].value == "difference"
    for view in panel.views:
        assert view.data.attrs["compared"] == 1 and "result.difference" in view.code
        assert "within twice" in view.sentence, "a run does not differ from its copy"
    np.testing.assert_allclose(panel.views[0].data.contribution[:, 1:], 0)
    panel.controls["visit"].value = 1
    curves = panel.views[-1]
    assert curves.data.run.values.tolist() == ["one", "two"]
    assert "one: Visit 1" in curves.sentence and "two: Visit 1" in curves.sentence
    panel.controls["visit"].value = 0
    panel.controls["show"].value = "two"
    assert panel.views[0].code == "explore.Subject('two').group('value_residual')"


def test_the_experiment_is_one_that_the_train_notebook_takes(runs):
    panel = explore.value_residual("one")
    panel.children[1].children[-1].click()
    path = runs / "one" / "experiments" / "value_residual.yaml"
    assert str(path) in panel._message.value
    plan = yaml.safe_load(path.read_text())
    names, seeds, mechanisms = set(), [], []
    for command in plan["commands"]:
        words = shlex.split(command)
        assert words[:4] == ["python", "-m", "workbench", "train"] and words[4] == "--name"
        pairs = list(zip(words[7::3], words[8::3], strict=True))
        values = parse_parameters(NOTEBOOK, pairs)
        shape = preset(values["preset"], **values["model"])
        train_config(optimizer=values["optimizer"], steps=values["steps"], device="cpu")
        names.add(words[5])
        seeds.append(values["seed"])
        mechanisms.append(shape.value_residual is not None)
        assert text.load_tokenizer(values["tokenizer"])
    assert len(names) == 4 and len(set(seeds)) == 2
    assert mechanisms == [True, True, False, False]


def test_a_diagnosis_without_decisions_is_measured_anew(runs):
    from workbench import diagnostics, evaluation

    shutil.copytree(runs / "one", runs / "old")
    opened = evaluation.open_run("old")
    old = explore.Subject("old").group("value_residual").drop_vars(["decision", "death"])
    diagnostics.save_diagnosis(opened, {"value_residual": old})
    assert "decision" in explore.value_residual("old").views[0].data
