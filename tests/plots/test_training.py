"""The figure of a training whose updates were measured."""

import pytest
from planted_training import BATCH, planted_lines

from workbench import plots, readings
from workbench.plots.training import PANELS, training_lines
from workbench.plots.twin import svg


def titles(figure):
    """Return the titles of the vertical axes, in order."""
    names = sorted((len(name), name) for name in figure.layout if name.startswith("yaxis"))
    every = [figure.layout[name].title.text for _, name in names]
    return [title for title in every if title]


def test_what_was_measured_has_a_panel_with_a_unit():
    figure = plots.training(planted_lines(200), scalars="q_gain")
    assert titles(figure) == [title for title, _ in PANELS.values()]
    assert all(title.endswith("]") for title in titles(figure))
    assert titles(plots.training(planted_lines(200))) == titles(figure)[:-1]
    assert "embedding" in svg([figure]) and "a step" in svg([figure])


def test_kinds_bear_their_names_where_neighbours_do_not():
    figure = plots.training(planted_lines(200))
    kinds = {each.name: each for each in figure.data if each.name in ("matrix", "embedding")}
    places = {name: list(each.text).index(name) for name, each in kinds.items()}
    assert abs(places["matrix"] - places["embedding"]) >= 4
    assert kinds["matrix"].line.color != kinds["embedding"].line.color
    assert set(kinds["matrix"].y) == {0.9} and set(kinds["matrix"].text) == {"", "matrix"}


def test_a_name_stays_with_its_point_until_the_line_has_doubled():
    """A page that is sent new numbers shows no text at a point that had none before."""
    places = {}
    for count in (330, 400, 480, 630, 650):  # every tenth step is measured
        for line in training_lines(planted_lines(count)):
            if line.label == "matrix":
                size, place = line.size, line.text.index("matrix")
                places.setdefault(size, set()).add(place)
    assert len(places) == 2 and all(len(each) == 1 for each in places.values())


def test_noise_stands_between_its_bounds_beside_the_tokens_of_a_step():
    lines = {
        line.label: line for line in training_lines(planted_lines(300)) if line.panel[0] == "n"
    }
    assert list(lines) == ["", "at least", "at most", "a step"]
    assert set(lines["a step"].values) == {BATCH}
    for low, middle, high in zip(
        *(lines[n].values for n in ("at least", "", "at most")), strict=True
    ):
        assert low < middle < high
    assert lines[""].values[-1] == pytest.approx(2000, rel=0.2)


def test_a_bound_that_is_not_there_is_not_drawn():
    lines = training_lines(planted_lines(200, spread=20.0, seed=1))
    last = {line.label: line.steps[-1] for line in lines if line.panel == "noise_scale"}
    assert last["at least"] == 200 and last.get("at most", 0) < 200


def test_clipping_is_a_running_share():
    (line,) = [each for each in training_lines(planted_lines(200)) if each.panel == "clipped"]
    assert line.values[100] == pytest.approx(0.25, abs=0.1)


def test_lines_and_their_table_are_drawn_alike_and_thinned_to_what_is_asked():
    lines = planted_lines(2000)
    figure = plots.training(lines, most=100, scalars="alpha")
    assert figure == plots.training(readings.tabled(lines), most=100, scalars="alpha")
    assert max(len(trace.x) for trace in figure.data) <= 102
    drawn = [(list(each.x), list(each.y)) for each in figure.data]
    assert drawn == [(e.steps, e.values) for e in training_lines(lines, most=100, scalars="alpha")]


def test_names_from_a_file_are_inert():
    lines = planted_lines(20)
    lines[-1]["grad_norm_by_kind"] = {"<img src=x>$a$": 1.0}
    text = plots.training(lines).to_json()
    assert "<img" not in text and "$a$" not in text
