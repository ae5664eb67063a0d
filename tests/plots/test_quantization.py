"""Figures of artifacts, from made-up numbers: points, bars and curves are those of the results."""

import re

import numpy as np
import plotly.graph_objects as go
import pytest
from planted_quantization import artifact, record
from scipy.stats import binomtest

from workbench import plots, readings
from workbench.plots.by_run import join_runs
from workbench.plots.rank_corners import by_role
from workbench.plots.twin import svg


def named(figure, name, at=0):
    return [trace for trace in figure.data if trace.name == name][at]


def test_points_are_costs_over_predictions_and_can_be_clicked():
    ds = artifact(planted=True)
    figure = plots.quantization(ds, chosen="block.1.value")
    left, right = named(figure, "value"), named(figure, "value", 1)
    here = ds.isel(matrix=np.flatnonzero(ds.role == "value"))
    np.testing.assert_allclose(left.x, here.predicted_cost, rtol=1e-3)
    np.testing.assert_allclose(left.y, here.cost, rtol=1e-3)
    np.testing.assert_allclose(left.error_y.array, 0.002)
    assert left.customdata == ("block.0.value", "block.1.value") and left.meta["sets"] == "matrix"
    assert list(left.marker.size) == [11, 18] and list(left.text) == ["0", "1"]
    np.testing.assert_allclose(right.x, -10 * np.log10(here.weight_error), rtol=1e-3)
    np.testing.assert_allclose(right.y, -10 * np.log10(here.output_error), rtol=1e-3)
    assert "[bit/byte]" in left.hovertext[0] or "bit/byte" in left.hovertext[0]
    assert right.showlegend is False and left.showlegend is not False
    axes = [figure.layout[each].title.text for each in ("xaxis", "yaxis", "xaxis2", "yaxis2")]
    assert all(re.search(r"\[(bit/byte|dB)\]", title) for title in axes)
    assert figure.layout.yaxis.type == "log" and figure.layout.yaxis2.type is None
    assert "bdata" not in figure.to_json()


def test_what_costs_nothing_is_hollow_and_stays_on_the_axis():
    ds = artifact()
    ds["cost"][1] = -0.5
    figure = plots.quantization(ds)
    query = named(figure, "query")
    assert query.marker.symbol[0].endswith("-open") and not query.marker.symbol[1].endswith("-open")
    assert query.y[0] > 0 and query.error_y.array[0] == 0 == query.error_y.arrayminus[0]
    assert all(low < high for low, high in zip(query.error_y.arrayminus, query.y, strict=True))
    every = plots.quantization(artifact(noise=True)).data
    assert all(symbol.endswith("-open") for each in every for symbol in each.marker.symbol or ())


def test_costs_along_bytes_have_no_line_of_agreement():
    ds = artifact()
    along = plots.quantization(ds, along="bytes")
    lines = [trace for trace in along.data if trace.mode == "lines"]
    assert len(lines) == 1 and lines[0].xaxis == "x2"
    assert len([e for e in plots.quantization(ds).data if e.mode == "lines"]) == 2
    assert list(named(along, "embedding").x) == [100] and "[byte]" in along.layout.xaxis.title.text


def test_intervals_of_survival_are_those_of_wilson():
    ds = artifact(planted=True)
    figure = plots.survival(ds)
    for part in ("all", "rare"):
        dots, one = named(figure, f"{part}, lost"), ds.sel(part=part)
        for at, (k, n) in enumerate(zip(one.flipped.values, one.kept_first.values, strict=True)):
            wilson = binomtest(int(k), int(n)).proportion_ci(method="wilson")
            assert dots.y[at] == pytest.approx(k / n, rel=1e-3)
            assert dots.y[at] + dots.error_y.array[at] == pytest.approx(wilson.high, abs=1e-3)
            assert dots.y[at] - dots.error_y.arrayminus[at] == pytest.approx(wilson.low, abs=1e-3)
        np.testing.assert_allclose(named(figure, f"{part}, foretold").y, one.flip_predicted)
    assert figure.layout.xaxis.title.text.endswith("of 0.50 nat [1]")
    ds["kept_first"][1], ds["flipped"][1] = 0, 0
    assert set(named(plots.survival(ds), "rare, lost").y) == {None}


def test_the_frontier_falls_by_four_for_every_bit_a_weight():
    ds = readings.artifacts(record())
    figure = plots.frontier(ds)
    curve, points = figure.data
    assert list(points.x) == [1000, 2000, 3000]
    np.testing.assert_allclose(points.y, [1.66, 1.55, 1.51])
    at = np.interp(2000, curve.x, np.log(np.array(curve.y) - 1.5))  # 8,000 more bits of 8,000
    assert np.exp(at) == pytest.approx(0.04, rel=0.01)
    assert figure.layout.shapes[0].y0 == 1.5 and points.text == ("small", "middle", "large")
    assert points.error_y.array[1] is None


def test_cells_of_tokens_and_predictors_are_bars_with_errors():
    ds = artifact()
    for name in ("rho", "cost_by_class", "cost_by_decile"):
        figure = plots.parts(ds, name=name)
        bar = next(trace for trace in figure.data if isinstance(trace, go.Bar))
        assert sum(bar.x) == pytest.approx(float(ds[name].sum()), rel=1e-2)
        assert bar.error_x.visible


def test_figures_of_one_run_and_two_have_a_static_twin():
    one, two = artifact(), artifact(planted=True)
    both, made = join_runs([one, two], ["a", "b"]), readings.artifacts(record())
    figures = [plots.quantization(both), plots.survival(both)]
    figures += [plots.quantization(two), plots.survival(two), plots.frontier(made)]
    figures.append(plots.frontier(join_runs([made, made], ["a", "b"])))
    assert named(figures[0], "a value").marker.color != named(figures[0], "b value").marker.color
    assert "feedforward_in" in svg(figures)


def test_roles_have_different_marks_and_hostile_names_are_inert():
    ds = artifact().assign_coords(matrix=[f"<img src=x>$a$ {at}" for at in range(13)])
    place = np.ones(13)
    traces = by_role(ds[["cost"]], (place, place), hollow=place > 2, bars={})
    marks = {(each.marker.color, each.marker.symbol[0]) for each in traces}
    assert len(marks) == 7
    told = "".join(text for each in traces for text in each.hovertext)
    assert "<img" not in told and "$" not in told


def test_methods_are_lines_of_their_own():
    ds = readings.artifacts(record()).isel(setting=[2, 0, 1])
    figure = plots.frontier(ds.assign_coords(method=("setting", ["a", "b", "a"])))
    curve, one, two = figure.data
    assert (one.name, list(one.x), list(two.x)) == ("a", [2000, 3000], [1000])
    assert curve.x[0] == 1000 and curve.y[0] == pytest.approx(0.16), "through the least cost"
    assert figure.layout.yaxis.type == "log" and list(two.y) == [0.16]
    figure = plots.frontier(ds.assign_coords(method=("setting", [*"abc"])))
    marks = {(each.marker.symbol, each.line.color) for each in figure.data[1:]}
    assert len(marks) == 3
    assert readings.frontier(ds).startswith("Small (1,000 bytes)")
