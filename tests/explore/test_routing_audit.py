"""The routing panel without a browser: from the saved audit to the records of one target."""

import shutil

import numpy as np
import pytest

from workbench import explore
from workbench.diagnostics import diagnose, save_diagnosis
from workbench.evaluation import open_run
from workbench.folder import InputError


@pytest.fixture(scope="module")
def world_run(tiny_world_run):
    """A run on the closed world with its audit."""
    copy = tiny_world_run.path.with_name("routed")
    opened = open_run(shutil.copytree(tiny_world_run.path, copy, dirs_exist_ok=True))
    save_diagnosis(opened, diagnose(opened, only=["routing_audit"]))
    return opened.folder


@pytest.fixture
def panel(world_run):
    return explore.routing_audit(world_run.name)


def test_the_saved_audit_comes_first(panel, world_run):
    assert [view.plot for view in panel.views] == [
        "routing_audit",
        "profile_targets",
        "checkpoints",
    ]
    assert panel.views[0].sentence.startswith("Do not promote: the first red check is")
    assert set(panel.controls["step"].options) >= {0, 6} and panel.controls["step"].value == 6
    assert "audit_sample" in panel.code() and "'routed'" in panel.code()


def test_a_click_on_a_target_lists_its_records_and_their_margins(panel):
    heat = panel._figures[1].data[0]
    points = type("Points", (), {"point_inds": [(0, 0)]})
    panel._clicked(heat, points, None)
    assert panel.controls["cell"].value == heat.customdata[0][0]
    records = panel.table
    profile, target = panel.controls["cell"].value.split(": ", 1)
    assert set(records.profile.values) == {profile} and set(records.target.values) == {target}
    assert [view.plot for view in panel.views][3:] == ["routing_records", "logit_prior"]
    asked = panel.views[1].data.asked.sel(profile=profile, target=target)
    assert records.sizes["record"] == int(asked)
    panel.controls["cell"].value = ""
    assert len(panel.views) == 3


def test_the_step_is_followed_by_every_view_and_can_be_clicked(panel):
    heat = panel._figures[2].data[0]
    panel._clicked(heat, type("Points", (), {"point_inds": [(0, 0)]}), None)
    assert panel.controls["step"].value == 0
    early = panel.views[0].data
    history = panel.views[2].data
    assert (early.owned_coverage.values == history.owned_by_step.sel(step=0).values).all()
    assert "), 0)" in panel.code()


def test_two_runs_begin_with_their_difference(world_run):
    copy = world_run.path.with_name("routed-again")
    shutil.copytree(world_run.path, copy, dirs_exist_ok=True)
    both = explore.routing_audit(world_run.name, copy.name)
    assert both.controls["show"].options[0] == "difference"
    first = both.views[0]
    assert first.data.attrs["compared"] == 1 and (first.data.accuracy == 0).all()
    assert "within twice its standard error" in first.sentence
    both.controls["cell"].value = both.controls["cell"].options[1]
    shown = [view.plot for view in both.views]
    each = ["profile_targets", "checkpoints", "routing_records"]
    assert shown == ["routing_audit", *np.repeat(each, 2), "components"], "every view of either run"
    for at in (1, 3, 5):
        names = [view.sentence.split(":")[0] for view in both.views[at : at + 2]]
        assert names == [world_run.name, copy.name]
    assert both.views[-1].data.attrs["compared"] == 1 and both.views[-1].data["mean"].sum() == 0
    both.controls["show"].value = copy.name
    assert len(both.views) == 5


def test_a_run_on_text_says_what_to_pass_and_takes_a_table(tiny_run, tmp_path):
    bare = explore.routing_audit(tiny_run.name)
    assert len(bare.views) == 1 and "profiles='TABLE.csv'" in bare.views[0].sentence
    table = tmp_path / "mine.csv"
    rows = [f"{word} {n},{answer}" for word, answer in (("ab", "c"), ("fa", "d")) for n in range(3)]
    table.write_text("prompt,target\n" + "\n".join(rows) + "\n")
    panel = explore.routing_audit(tiny_run.name, profiles=str(table))
    assert panel.views[0].data.profile.values.tolist() == ["mine"]
    assert int(panel.views[0].data.records.item()) == 6
    assert "held_out" not in panel.views[0].data
    with pytest.raises(InputError, match="missing.csv"):
        explore.routing_audit(tiny_run.name, profiles=str(tmp_path / "missing.csv"))
