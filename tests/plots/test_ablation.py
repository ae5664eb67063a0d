"""Figures and readings of interventions, from made-up numbers."""

import re

import numpy as np
import plotly.graph_objects as go
import pytest
from planted_ablation import PARTS, curve, made, one_cost

from workbench import plots, readings
from workbench.plots.twin import svg
from workbench.readings.ablation import ablated_cells, alike
from workbench.result import difference


def test_cells_name_every_place_once():
    cells = ablated_cells(made())
    assert cells.part.values.tolist() == [
        *PARTS[:6],
        *(f"head.{h}" for h in range(4)),
    ]
    assert cells.cost.dims == ("visit", "part") or set(cells.cost.dims) == {"visit", "part"}
    assert float(cells.cost.sel(visit=1, part="head.2")) == 0.02
    assert np.isnan(cells.zero_cost.sel(part="head.0")).all(), "unmeasured, not 0"
    assert ablated_cells(difference(made(), made())).cost.shape == cells.cost.shape


def test_map_says_verdicts_in_words_and_can_be_clicked():
    figure = plots.ablation(made(planted=True), chosen="visit.1.head.0")
    (cells,) = figure.data
    assert cells.meta == {"sets": "target"} and cells.customdata[2][0] == "visit.2.block"
    assert cells.text[2][0] == "0.0003<br>+- 0.001<br>free"
    assert cells.text[0][0] == "0.05<br>+- 0.001"
    np.testing.assert_allclose(np.power(cells.z[1][6], 3), -0.01, rtol=1e-3)
    assert cells.zmax == -cells.zmin and cells.zmax >= np.cbrt(0.06), "0 in the middle"
    assert "visit.2.block" in cells.hovertext[2][0] and "bit/byte" in cells.hovertext[2][0]
    shape = figure.layout.shapes[0]
    assert (shape.x0, shape.y0, shape.line.dash) == (5.5, 0.5, "solid")
    told = figure.layout.annotations[0].text
    assert "[bit/byte]" in told and "free" in told
    assert "bdata" not in figure.to_json() and not plots.ablation(made()).layout.shapes


def test_cells_that_cost_the_same_on_the_same_text_are_dotted():
    ds = made()
    chosen = "visit.0.head.1"
    close = alike(ablated_cells(ds), chosen)
    assert int(close.sum()) == 7, "the other heads of visit 0, and those of visit 1"
    assert not close.sel(visit=2).any(), "half an error apart, but on every text alike"
    shapes = plots.ablation(ds, chosen=chosen).layout.shapes
    assert sorted(shape.line.dash for shape in shapes) == ["dot"] * 7 + ["solid"]
    assert f"From {chosen}, 7/29 others cannot be told (dotted)" in readings.ablation(
        ds, chosen=chosen
    )
    assert not alike(ablated_cells(ds), "logits").any()


def test_map_of_two_runs_marks_noise():
    figure = plots.ablation(difference(made(planted=True), made()))
    texts = figure.data[0].text
    assert "noise" in texts[0][0] and "noise" not in texts[2][0]
    assert "noise" in figure.layout.annotations[0].text


def test_map_with_gaps():
    gap = made()
    gap["head_cost"][:] = np.nan
    figure = plots.ablation(gap)
    assert figure.data[0].z[0][6] is None and np.isfinite(figure.data[0].zmax)
    assert "0/15 other parts" in readings.ablation(gap)


def test_bars_sum_to_the_total_and_name_noise():
    ds = one_cost([0, 0, -0.002, 0.0001, 0, 0.001, 0.02, 0.0305], 0.001)
    (bar,) = plots.intervention(ds).data
    assert bar.y[0] == "total  +0.05" and sum(bar.x[1:]) == pytest.approx(bar.x[0], rel=1e-3)
    assert bar.y[1].startswith("continuation") and bar.y[-1].startswith("newline")
    assert [label for label in bar.y if "noise" in label]
    assert set(bar.error_x.array) == {0.002}


def test_curve_passes_through_the_trained_network():
    figure = plots.intervention_curve(curve([0.1, 0.02, 0.01, 0.03]))
    (line,) = figure.data
    assert list(line.x) == [0, 0.5, 1, 1.25, 1.5] and list(line.y) == [0.1, 0.02, 0, 0.01, 0.03]
    layout = figure.layout
    assert "[bit/byte]" in layout.yaxis.title.text and "[1]" in layout.xaxis.title.text


def test_figures_can_be_drawn_without_scripts():
    figures: list[go.Figure] = [
        plots.ablation(made()),
        plots.intervention_curve(curve([1, 2, 3, 4])),
    ]
    drawn = svg([*figures, plots.intervention(one_cost([0.01] * 8, 0.001))])
    assert "free" in drawn and "continuation" in drawn


def test_reading_names_dearest_cheapest_and_what_is_free():
    healthy = readings.ablation(made())
    assert "Dearest to replace by its mean is visit 2 block (+0.0700 +- 0.0010 bit/byte" in healthy
    assert "cheapest visit 0 block (+0.05" in healthy and "are 0/3 blocks and 0/27 other" in healthy
    planted = readings.ablation(made(planted=True))
    assert "cheapest visit 2 block (+0.0003 +- 0.0010 bit/byte, noise)" in planted
    assert "are 1/3 blocks and 10/27 other parts and heads" in planted and "overstates" in planted
    few = readings.ablation(made(planted=True, few=True))
    assert "no verdict from 3 independent" in few and "leave out" not in few
    gap = made()
    gap["cost"][1] = np.nan
    assert readings.ablation(gap).startswith("Not able to judge")
    for text in (healthy, planted, few):
        assert len(re.split(r"\. (?=[A-Z])", text)) <= 3 and len(text) < 420


def test_reading_of_two_runs_names_the_largest_difference():
    text = readings.ablation(difference(made(planted=True), made()))
    assert text.startswith("11/30 parts and heads cost more") and "seed" in text
    assert "most apart is visit 2 block (-0.070 +- 0.000" in text
    same = readings.ablation(difference(made(), made()))
    assert same.startswith("0/30 parts") and "noise" in same


def test_reading_of_one_change_names_who_pays():
    text = readings.intervention(one_cost([0, 0, -0.002, 0, 0, 0.001, 0.02, 0.0305], 0.001))
    assert text.startswith("With visit.1 x 0.5 the text costs +0.0495 +- 0.0010")
    assert "most on continuation +0.03" in text and "and word_start +0.02" in text
    idle = readings.intervention(one_cost([0.0001] * 8, 0.001))
    assert "noise; no class pays" in idle
    compared = readings.intervention(one_cost([0.01] * 8, 0.001, compared=1))
    assert "the text costs more, +0.0800 +-" in compared and "seed" in compared
    alone = readings.intervention(one_cost([0.01] * 8, np.nan))
    assert "error unknown" in alone and "nan" not in alone


def test_reading_of_a_curve_says_whether_to_change_it():
    right = readings.intervention_curve(curve([0.1, 0.02, 0.001, 0.03]))
    assert right.startswith("No other factor beats") and "factor 1.25" in right
    weak = readings.intervention_curve(curve([0.1, 0.02, -0.01, 0.03]))
    assert "not the best: factor 1.25 costs -0.01" in weak
    assert "seed" in readings.intervention_curve(curve([0.1, 0.02, -0.01, 0.03], compared=1))


def test_reading_of_a_curve_does_not_judge_what_is_not_finite():
    unsure = curve([0.1, 0.02, -0.01, 0.03])
    unsure.cost_standard_error[2] = np.nan
    said = readings.intervention_curve(unsure)
    assert said.startswith("Not able to judge: factor 1.25 costs -0.01") and "beats" not in said
    assert said.endswith("1 of 4 factors not finite.")
    gap = readings.intervention_curve(curve([np.nan, 0.02, -0.01, 0.03]))
    assert "factor 1.25 costs -0.01" in gap and "1 of 4 factors not finite" in gap
    assert "not finite" not in readings.intervention_curve(curve([0.1, 0.02, -0.01, 0.03]))
    assert readings.intervention_curve(curve([np.nan] * 4)).startswith("Not able to judge")
