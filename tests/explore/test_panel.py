"""A panel without a browser: controls change, views follow."""

import asyncio
import subprocess
import sys

import ipywidgets as widgets
import plotly.graph_objects as go
import pytest
import xarray as xr

from workbench import plots
from workbench.explore import Panel
from workbench.plots.view import View
from workbench.result import variable


def drawn(ds: xr.Dataset) -> go.Figure:
    """Draw one line that clicks can choose from."""
    return go.Figure(
        go.Scatter(y=ds.level.values.tolist(), customdata=[3, 5], meta={"sets": "level"})
    )


@pytest.fixture
def panel(monkeypatch):
    """A panel of two views that share one control; the calls of each are counted."""
    monkeypatch.setattr(plots, "drawn", drawn, raising=False)
    calls = {"first": 0, "second": 0}

    def view(name: str, level: int, about: str) -> View:
        calls[name] += 1
        if level < 0:
            raise ValueError("a level below 0 has no meaning")
        data = xr.Dataset({"level": variable("bin", [level, level + 1], "level")})
        return View(plot="drawn", data=data, sentence=f"{about} <{level}>", code=f"f({level})")

    made = Panel(
        "of <run>",
        views=[
            lambda level: view("first", level, "first"),
            lambda level, name: None if not name else view("second", level, name),
        ],
        controls={"level": widgets.IntText(value=1), "name": widgets.Text(value="second")},
        actions={"write": lambda: "written"},
    )
    made.calls = calls
    return made


def test_views_follow_the_controls_they_name(panel):
    panel.controls["level"].value = 7
    assert panel._figures[0].data[0].y == (7, 8) and panel._figures[1].data[0].y == (7, 8)
    assert "&lt;7&gt;" in panel._sentences[0].value, "text is escaped"
    before = dict(panel.calls)
    panel.controls["name"].value = "other"
    assert panel.calls["first"] == before["first"], "a view that does not ask is not drawn again"
    assert panel.selection == {"level": 7, "name": "other"}
    assert panel.table.level.values.tolist() == [7, 8]
    assert panel.code() == "f(7)"


def test_a_view_with_nothing_to_show_is_hidden_and_comes_back(panel):
    panel.controls["name"].value = ""
    assert panel._places[1].layout.display == "none" and len(panel.views) == 1
    panel.controls["name"].value = "again"
    assert panel._places[1].layout.display == "flex" and len(panel.views) == 2


def test_a_click_sets_the_control_of_its_trace(panel):
    trace = panel._figures[0].data[0]
    points = type("Points", (), {"point_inds": [1]})
    panel._clicked(trace, points, None)
    assert panel.controls["level"].value == 5


def test_an_error_is_shown_and_not_swallowed(panel):
    with pytest.raises(ValueError, match="below 0"):
        panel.controls["level"].value = -1
    assert "below 0" in panel._message.value
    panel.controls["level"].value = 2
    assert panel._message.value == ""


def test_a_dragged_control_asks_once(panel):
    async def drag() -> None:
        before = panel.calls["first"]
        for level in range(10, 20):
            panel.controls["level"].value = level
        assert panel.calls["first"] == before, "waiting for quiet"
        assert panel.views[0].data.level.values[0] == 19, "whoever asks sees the present"
        await asyncio.sleep(0.3)
        assert panel.calls["first"] == before + 1

    asyncio.run(drag())


def test_a_button_says_what_it_did(panel):
    panel.children[1].children[-1].click()
    assert "written" in panel._message.value


def test_a_view_cannot_ask_for_what_is_not_there():
    with pytest.raises(ValueError, match="missing"):
        Panel("none", views=[lambda missing: None], controls={})


def test_looking_at_another_selection_leaves_the_panel_as_it_is(panel):
    seen = panel.look(level=40)
    assert seen[0].data.level.values[0] == 40 and str(seen[0]) == "first <40>"
    assert panel.controls["level"].value == 1 and panel.table.level.values[0] == 1
    assert len(panel.look(name="")) == 1, "a view with nothing to show is left out"
    with pytest.raises(ValueError, match="no control .'depth'"):
        panel.look(depth=1)


def test_every_control_has_a_label_and_hidden_ones_stay_hidden():
    shown = widgets.ToggleButtons(options=["a"])
    hidden = widgets.ToggleButtons(options=["a"], layout={"display": "none"}, description="kept")
    Panel("of one", views=[], controls={"bias_kept": shown, "other": hidden})
    assert [each.description.strip() for each in (shown, hidden)] == ["bias kept", "kept"]
    assert (shown.layout.display, hidden.layout.display) == ("flex", "none")


def test_importing_a_panel_builds_no_grammar_of_addresses():
    asked = "import sys, workbench.explore; assert 'rfc3987_syntax' not in sys.modules"
    subprocess.run([sys.executable, "-c", asked], check=True)
