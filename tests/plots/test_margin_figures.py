"""Figures and readings of what margins are made of, read as data."""

import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest
from planted_margins import HOSTILE, MAKERS, damping, frequency, lens, network, parts

from workbench import plots, readings


@pytest.mark.parametrize("noun", MAKERS)
def test_figure_is_plain_the_same_twice_and_has_units(noun):
    figure = getattr(plots, noun)(MAKERS[noun]())
    text = figure.to_json()
    assert type(figure) is go.Figure and len(figure.data) > 0
    assert text == getattr(plots, noun)(MAKERS[noun]()).to_json()
    assert "bdata" not in text and len(text) < 100_000 and HOSTILE not in text
    layout = figure.layout.to_plotly_json()
    axes = [layout[key] for key in layout if re.fullmatch("[xy]axis[0-9]*", key)]
    titles = [axis["title"]["text"] for axis in axes if axis.get("type") != "category"]
    assert all(re.search(r"\[.+\]|^visit", title) for title in titles)


@pytest.mark.parametrize("noun", MAKERS)
def test_reading_is_short_and_finite(noun):
    said = getattr(readings, noun)(MAKERS[noun]())
    assert said.endswith(".") and len(said) < 420 and "nan" not in said
    assert said == readings.reading(noun, MAKERS[noun]())


def test_waterfall_begins_each_part_where_the_one_before_ends():
    ds = network()
    (bars,) = plots.components(ds).data
    means = ds["mean"].values
    np.testing.assert_allclose(bars.x, [*means, means.sum()], rtol=1e-3)
    np.testing.assert_allclose(bars.base[1:-1], np.cumsum(means)[:-1], rtol=1e-3)
    assert bars.base[0] == bars.base[-1] == 0
    np.testing.assert_allclose(bars.error_x.array[:-1], 0.1, rtol=1e-3)
    assert bars.error_x.array[-1] is None
    assert len(bars.marker.color) == len(bars.x) and bars.y[-1].startswith("margin")


def test_waterfall_of_a_deep_network_shares_a_row_and_still_adds_up():
    ds = network(n_visit=16)
    (bars,) = plots.components(ds).data
    assert len(bars.y) == 34 and any(label.startswith("all others") for label in bars.y)
    assert sum(bars.x[:-1]) == pytest.approx(bars.x[-1], rel=1e-3)
    assert any("visit 2 feedforward out" in label for label in bars.y)


def test_components_reading_names_the_part_and_does_not_claim_cause():
    said = readings.components(network())
    number = "+2.000 +- 0.051 nat (+- standard error over 9 groups, n 40)"
    assert said.startswith(f"Visit 2 feedforward out {number}")
    assert "attribute" in said and "caus" not in said and "3e-07" in said
    compared = readings.components(parts({"bias": 0.0, "prior": 0.3, "context": -0.05}, compared=1))
    assert "beyond the error" in compared and "seed" in compared and "prior +0.300" in compared
    unsure = parts({"bias": 0.0, "prior": 0.05, "context": 0.0}, compared=1)
    assert "within the error" in readings.components(unsure)
    broken = parts({"bias": np.nan, "prior": 0.0})
    assert readings.components(broken).startswith("Not able to judge")
    single = parts({"bias": 0.1, "prior": 0.3}, width=np.nan)
    assert "+-" not in readings.components(single)


def test_damping_shows_curves_and_the_setting_by_class():
    prior, bias, chosen, bars = plots.damping(damping(planted=True)).data
    assert list(prior.x) == [0, 0.5, 1] and list(prior.y) == [0.5, 0.1, 0]
    assert list(bias.x) == [0, 0.5, 1] and list(bias.y) == [0.3, -0.08, 0]
    np.testing.assert_allclose(prior.error_y.array, [0.04, 0.02, 0])
    assert list(chosen.x) == [0.5] and list(bars.x) == [-0.06, -0.02]
    asked = damping().assign_attrs(setting=1)
    assert list(plots.damping(asked).data[-1].x) == [0.075, 0.025]
    without = damping().isel(setting=slice(0, 3))
    assert [trace.name for trace in plots.damping(without).data[:2]] == ["prior", "this setting"]


def test_damping_reading_says_whether_less_helps():
    helps = readings.damping(damping(planted=True))
    assert "50% of the bias saves 0.080 +- 0.010 of 2.000 bit/byte" in helps and "too much" in helps
    assert "12 of 400 winners" in helps
    healthy = readings.damping(damping())
    assert "costs 0.020 +- 0.010" in healthy and "within twice" in healthy
    assert "no reason" in healthy


def test_damping_does_not_judge_what_is_not_finite():
    unsure = damping(planted=True)
    unsure.change_standard_error[3] = np.nan
    said = readings.damping(unsure)
    assert said.startswith("Not able to judge keeping 100% of the prior and 50% of the bias")
    assert "-0.0800 bit/byte with no error; 1 of 5 settings not finite" in said
    gone = damping(planted=True)
    gone.change[3] = np.nan
    said = readings.damping(gone)
    assert said.startswith("Keeping 50% of the prior") and "1 of 5 settings not finite" in said
    gone.change[:] = np.nan
    said = readings.damping(gone)
    assert said.startswith("Not able to judge") and "nan" not in said
    assert "not finite" not in readings.damping(damping(planted=True))


def test_frequency_names_the_token_beyond_its_line():
    planted = readings.unigram_prior(frequency(planted=True))
    assert "Favoured in every context: 1 beyond 4" in planted and "'<b>$x</b>' +5.00" in planted
    assert "No token dominates" in readings.unigram_prior(frequency())
    few = readings.unigram_prior(frequency(count=12))
    assert few == "Not able to judge: only 11 tokens were learned often enough."
    figure = plots.unigram_prior(frequency(planted=True))
    assert sum(len(trace.x) for trace in figure.data[:3]) == 59, "the unjudged is left out"
    assert figure.data[-1].text[0] == "&nbsp;'&lt;b&gt;&#36;x&lt;/b&gt;'&nbsp;"
    assert "norm of the head's row 1" in figure.data[0].hovertext[0]
    unjudged = frequency()
    unjudged["excess"] = unjudged.excess * np.nan
    assert json.loads(plots.unigram_prior(unjudged).to_json())


def test_lens_names_the_visit_that_lowers_nothing():
    healthy = readings.logit_lens(lens())
    assert healthy.endswith("visit 2, by 1.500 +- 0.010 nat/token (+- paired standard error).")
    small = lens().assign(loss_standard_error=lens().loss * 0 + 9)
    assert readings.logit_lens(small) == healthy, "losses of the same tokens are paired"
    unsure = lens().assign(gain_standard_error=lens().gain * np.nan)
    assert "Not able to judge visits" in readings.logit_lens(unsure)
    assert "diagnose again" in readings.logit_lens(lens().drop_vars("gain"))
    assert "not clearly at 3" in readings.logit_lens(lens(planted=True))
    assert readings.logit_lens(lens().isel(visit=[0])).startswith("Not able to judge")
    high, low, median = plots.logit_lens(lens()).data
    assert list(median.y) == [90, 50, 20, 7] and list(high.x) == [0, 1, 2, 3]
    assert low.fill == "tonexty"


def decision(**changed):
    said = {"decision": "bias", "predictions": 60, "failed": 40, "constant": 38}
    said |= {"constant_low": 0.9, "constant_high": 0.99, "gain_bias": 0.02, "gain_prior": 0.0}
    return readings.what_to_mend(parts({"bias": 3.0}, **(said | changed)))


def test_decision_is_told_with_its_evidence():
    assert decision() == (
        "Mend the bias. 40 of 60 predictions are wrong; 38 of these winners need bias or prior "
        "(95 % interval 90% to 99%); keeping less bias saves 0.0200 bit/byte."
    )
    head = decision(decision="head", gain_bias=0.0, gain_prior=0.1)
    assert head.startswith("Mend the head") and "less prior saves 0.1000" in head
    trunk = decision(decision="trunk", gain_bias=0.0)
    assert trunk.startswith("Mend the trunk") and trunk.endswith("saves nothing certain.")
    unsure = decision(decision="not able to judge", constant_low=np.nan)
    assert unsure.startswith("Not able to judge. 40 of 60") and "interval" not in unsure
    assert decision(decision="nothing to mend", failed=0).startswith("Nothing to mend. 0 of 60")
