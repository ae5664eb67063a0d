"""What is said of mixing scalars, of one alpha's curve, and of the decisions on value residuals."""

import numpy as np
import pytest
import xarray as xr
from planted_mixing import make_alpha_curve, make_mixing

from workbench import readings
from workbench.result import difference, variable


def judged() -> xr.Dataset:
    """Three visits at one step: none, a dead one, one whose own value takes back what is mixed."""
    nan = np.nan
    cost = {"zero_cost": [nan, 0.0, 0.031], "zero_cost_standard_error": [nan, 0.0, 0.004]}
    made = {
        "alpha_effective": variable("visit", [nan, 0.0, 0.6], "mix"),
        "contribution": variable("visit", [nan, 0.0, 0.001], "projection"),
        "contribution_share": variable("visit", [nan, 0.0, 0.4], "share"),
        "cosine": variable("visit", [nan, 0.2, -0.8], "cosine"),
        "death": variable("visit", [nan, 20.0, nan], "death"),
        "decision": variable("visit", ["", "remove", "keep"], "decision"),
    } | {name: variable("visit", values, name, "bit/byte") for name, values in cost.items()}
    return xr.Dataset(made, coords={"visit": [0, 1, 2]})


def test_mixing_names_the_dearest_and_counts_decisions():
    text = readings.reading("mixing", make_mixing(planted=True))
    assert text.startswith("Setting visit 1 resid_mix_stream back from a mean of 1.25 to 1.00")
    assert "+0.4000 +- 0.0400 bit/byte" in text
    assert "10 scalars and vectors: keep 9, remove 1" in text
    gap = make_mixing()
    gap.reset_cost[:] = np.nan
    assert readings.mixing(gap).startswith("Not able to judge")


def test_a_difference_says_whether_it_exceeds_its_error():
    text = readings.mixing(difference(make_mixing(), make_mixing(planted=True)))
    assert "visit 1 q_gain" in text and "beyond twice" in text and "another seed" in text
    same = readings.mixing(difference(make_mixing(), make_mixing()))
    assert "+0.0000" in same and "within twice" in same
    values = readings.value_residual(difference(judged(), judged()))
    assert values.startswith("The runs differ most at visit 1") and "within twice" in values


def test_decisions_are_told_with_projection_and_cosine():
    text = readings.value_residual(judged())
    assert "Visit 1 under 1%, as good as unused" in text
    assert "visit 2 taken back by its own value (projection near 0)" in text
    assert "visit 1 remove (dead), projection 0.00, cosine 0.20" in text
    assert "visit 2 keep, projection 0.00, cosine -0.80" in text
    assert "at most 0.0310 +- 0.0040 bit/byte (visit 2), which overstates" in text


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("flat", "the alpha is free"),
        ("needed", "the alpha is needed"),
        ("elsewhere", "under-trained"),
        ("unjudged", "not able to judge"),
    ],
)
def test_every_verdict_of_a_curve_has_its_words(verdict, words):
    ds = make_alpha_curve().assign_attrs(verdict=verdict)
    text = readings.alpha_curve(ds)
    assert words in text and "learned mix 1.20" in text and "curvature 0.04 +- 0.002" in text
    assert "mix asked for costs +0.0300 +- 0.0020" in text
    assert "asked" not in readings.alpha_curve(ds.drop_vars("asked_cost"))
