"""Figures of the mixing scalars and of one alpha's curve, read as data."""

import numpy as np
import pytest
from planted_mixing import make_alpha_curve, make_mixing

from workbench import plots
from workbench.result import difference


def test_mixing_is_sorted_by_the_cost_of_the_start_and_marks_what_saves():
    ds = make_mixing(planted=True)
    figure = plots.mixing(ds)
    zero, reset = figure.data
    order = np.argsort(-np.abs(ds.reset_cost.values))
    assert [label.split("  (")[0] for label in reset.y] == list(ds.scalar.values[order])
    np.testing.assert_allclose(reset.x, np.abs(ds.reset_cost.values[order]).clip(1e-5), rtol=1e-3)
    np.testing.assert_allclose(
        zero.error_x.array, 2 * ds.zero_cost_standard_error.values[order], rtol=1e-3
    )
    saved = reset.y.index("visit 2 value_residual  (1.25)")
    assert reset.marker.symbol[saved] == "circle-open"
    assert set(np.delete(reset.marker.symbol, saved)) == {"circle"}
    assert reset.y[-1] == "visit 1 q_gain  (1.75)", "what does nothing comes last"
    told = {each.y: each.text for each in figure.layout.annotations}
    assert told["visit 1 q_gain  (1.75)"] == "remove"
    assert figure.layout.shapes[0].x0 == 0.002


def test_mixing_of_a_difference_has_no_decisions():
    figure = plots.mixing(difference(make_mixing(), make_mixing(planted=True)))
    assert len(figure.data) == 2 and not figure.layout.annotations


def test_alpha_curve_marks_what_was_learned_and_asked_for():
    ds = make_alpha_curve()
    figure = plots.alpha_curve(ds)
    curve, mean, asked = figure.data
    np.testing.assert_allclose(curve.x, ds.setting)
    np.testing.assert_allclose(curve.y, ds.cost, rtol=1e-3)
    assert (mean.x, mean.y, asked.x) == ((0.0,), (0.03,), (2.0,))
    assert [shape.x0 for shape in figure.layout.shapes[:2]] == [1.2, 0.5]
    assert figure.layout.xaxis.title.text == "mix applied at visit 3 [1]"
    bare = ds.drop_vars(["mean_cost", "asked_cost"])
    assert len(plots.alpha_curve(bare).data) == 1


def test_value_residual_marks_its_start_and_can_be_clicked(synthetic):
    ds = synthetic["value_residual"]().assign_attrs(init_effective=0.5)
    figure = plots.value_residual(ds)
    assert figure.layout.shapes[0].y0 == 0.5
    bar = next(trace for trace in figure.data if trace.type == "bar")
    assert list(bar.customdata) == [1, 2, 3, 4, 5] and bar.meta == {"sets": "visit"}
    assert set(figure.data[1].customdata) == {2}
    without = plots.value_residual(synthetic["value_residual"]())
    assert not without.layout.shapes


@pytest.mark.parametrize("share", [0.5, 0.003])
def test_cancellation_is_seen_in_the_diamond(synthetic, share):
    ds = synthetic["value_residual"]()
    ds.contribution_share[-1, 3], ds.contribution[-1, 3] = share, 0.0
    diamonds = next(
        trace for trace in plots.value_residual(ds).data if "projection" in (trace.name or "")
    )
    assert diamonds.x[2] == 0
