"""Readings of what the sweep measures name the extreme and leave the healthy alone."""

import numpy as np
import pytest
import xarray as xr

from workbench.readings import activation, attention, reading
from workbench.result import variable


def ranks(ratio, *, tokens=20_000, error=0.5):
    ratio = np.asarray(ratio, dtype=float)
    names = ("activation_rank", "activation_rank_standard_error", "activation_rank_ratio", "width")
    values = (ratio * 100, np.full(ratio.shape, error), ratio, np.full(ratio.shape, 100))
    dims = ("visit", "role")
    return xr.Dataset(
        {name: variable(dims, each, name) for name, each in zip(names, values, strict=True)},
        coords={"visit": range(len(ratio)), "role": ["query", "feedforward_in"]},
        attrs={"tokens": tokens},
    )


def heads(entropy, sink):
    entropy, sink = np.asarray(entropy, dtype=float), np.asarray(sink, dtype=float)
    rest = {"previous": entropy * 0 + 0.6, "same_word": entropy * np.nan}
    error = {"entropy_standard_error": entropy * 0 + 0.002}
    found = {"entropy": entropy, "sink": sink, **rest, **error}
    return xr.Dataset(
        {name: variable(("visit", "head"), each, name) for name, each in found.items()},
        coords={"visit": range(len(entropy)), "head": range(entropy.shape[1])},
        attrs={"queries": 4000.0, "even_sink": 0.02, "even_previous": 0.02, "even_same_word": 0.03},
    )


def test_activation_names_the_lowest_site_with_its_error():
    text = activation(ranks([[0.8, 0.7], [0.9, 0.21]]))
    assert (
        "feedforward in at visit 1" in text and "21.00 +- 0.50 of 100 (+- standard error)" in text
    )
    assert "0.21 of what chance" in text and "median of 0.75" in text and "biased" not in text


def test_what_is_not_finite_is_counted():
    text = activation(ranks([[0.8, np.nan], [np.nan, 0.21]]))
    assert "over sites; 2 of 4 sites not finite." in text
    gap = heads([[0.3, np.nan], [0.05, 0.4]], [[0.1] * 2] * 2)
    assert "1 of 4 heads not finite." in attention(gap)
    gap["entropy_standard_error"] = gap.entropy * np.nan
    assert "error unknown" in attention(gap) and "nan" not in attention(gap)
    for healthy in (activation(ranks([[0.8, 0.7]])), attention(heads([[0.3, 0.9]], [[0.1] * 2]))):
        assert "not finite" not in healthy


def test_activation_says_when_vectors_are_few_and_when_there_is_no_error():
    assert "under 10 vectors a channel" in activation(ranks([[0.8, 0.7]], tokens=999))
    assert "error unknown" in activation(ranks([[0.8, 0.7]], error=np.nan))
    assert activation(ranks([[np.nan, np.nan]])).startswith("Not able to judge")


def test_attention_names_focused_even_and_parked_heads():
    text = attention(heads([[0.3, 0.999], [0.05, 0.4]], [[0.1, 0.02], [0.1, 0.8]]))
    assert text.startswith("Head 0 of visit 1") and "60% on the token before" in text
    assert "head 0.1 even to all keys" in text and "head 1.1 mostly to the first key" in text
    assert "ablate before" in text


@pytest.mark.parametrize("sink", [0.05, 0.45])
def test_attention_leaves_a_moderate_sink_alone(sink):
    assert "Attending" not in attention(heads([[0.3, 0.6]], [[sink, 0.1]]))


def test_attention_cannot_judge_what_was_not_measured():
    assert reading("attention", heads([[np.nan]], [[np.nan]])).startswith("Not able to judge")
