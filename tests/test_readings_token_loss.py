"""What readings of losses say: the extreme, its error, and no more than the data carry."""

import numpy as np
import pytest
import xarray as xr
from token_tables import make_table

from workbench import readings
from workbench.diagnostics import calibration, loss_cells, position_loss, token_loss
from workbench.readings.notation import with_error
from workbench.result import variable
from workbench.text import TOKEN_CLASSES


def raised(by, kind="digit"):
    """Raise the excess of one class."""
    table = make_table()
    chosen = table.token_class.values == TOKEN_CLASSES.index(kind)
    table.excess.values[chosen] += by
    return table


def test_the_class_with_most_to_win_is_named_with_its_error():
    found = token_loss(raised(0.8))
    said = readings.token_loss(found)
    digit = found.sel(token_class="digit")
    number = with_error(digit.excess, digit.excess_standard_error)
    assert said.startswith(f"Digit tokens hold the most of it: {number} of")
    assert "above counting, recoverable in all (+- standard error over 25 documents)" in said
    assert "not separable" not in said.split("cost")[0] and len(said) < 330
    both = raised(0.8)
    both.excess.values[both.token_class.values == TOKEN_CLASSES.index("newline")] += 0.8
    assert "not separable from" in readings.token_loss(token_loss(both)).split("cost most")[0]


def test_a_model_that_beats_counting_has_nothing_named():
    said = readings.token_loss(
        token_loss(make_table().pipe(lambda t: t.assign(excess=t.excess - 1)))
    )
    assert said.startswith("In all nothing beyond error is shown to be recoverable: -")
    assert "loses" not in said and "hold the most" not in said


def test_an_optimal_model_that_loses_to_counting_on_one_class_has_nothing_recoverable():
    """What is lost where digits come is the price of what is won where they do not."""
    table = raised(0.8)
    table.excess.values[table.token_class.values != TOKEN_CLASSES.index("digit")] -= 0.8
    found = token_loss(table)
    assert float(found.sel(token_class="digit").excess) > 0 > float(found.total_excess)
    said = readings.token_loss(found)
    assert said.startswith("In all nothing beyond error is shown to be recoverable: -")
    assert "the network loses to counting on digit tokens by 0.0" in said
    assert "and wins elsewhere" in said
    found["total_excess_standard_error"] = found.total_excess * np.nan
    unknown = readings.token_loss(found)
    assert unknown.startswith("Not able to judge what is recoverable: -") and "nan" not in unknown


def test_a_total_without_a_class_beyond_its_error_names_none():
    found = token_loss(raised(0.8))
    found["excess_standard_error"] = found.excess_standard_error + 1
    said = readings.token_loss(found)
    assert "and no class is above it beyond its error" in said


def test_cells_of_few_tokens_are_not_judged():
    ds = loss_cells(raised(0.8), ["token_class", "decile"])
    said = readings.parts(ds)
    assert "most of the excess over counting lies in token_class digit" in said
    assert "known only afterwards" in said and "recoverable" not in said
    healthy = readings.parts(loss_cells(make_table(), ["token_class"]))
    assert healthy.startswith("No cell is above counting beyond its error")
    places = loss_cells(raised(9), ["bin"])
    assert "afterwards" not in readings.parts(places), "a place is known before its target"
    alone = readings.parts(ds.assign(excess_standard_error=ds.excess_standard_error * np.nan))
    assert alone.startswith("Not able to judge token_class")
    assert readings.parts(ds.assign(tokens=ds.tokens * 0)).startswith("Not able to judge")


@pytest.mark.parametrize(
    ("power", "word"), [(1, "unbiased"), (0.5, "overconfident"), (2, "underconfident")]
)
def test_calibration_says_which_way(power, word):
    table = make_table(n_token=9000)
    sure = table.top1_probability**power
    sure.attrs = table.top1_probability.attrs
    ds = calibration(table.assign(top1_probability=sure))
    assert word in readings.calibration(ds)
    assert readings.calibration(ds, chosen="byte").startswith("Not able to judge")


def test_position_says_what_it_cannot_tell():
    table = make_table(n_token=16_000)
    assert "Not able to tell that the second half" in readings.position_loss(position_loss(table))
    early = table.assign(nll=table.nll + 2.0 * (table.position < 8))
    assert "The second half of the context is cheaper by 2." in readings.position_loss(
        position_loss(early)
    ) or np.isclose(float(position_loss(early).context_gain), 2, atol=0.3)


def test_a_difference_of_cells_is_judged_by_its_size_either_way():
    ds = loss_cells(raised(-0.8), ["token_class"]).assign_attrs(compared=1, reference="old")
    said = readings.parts(ds)
    assert said.startswith("Most apart in token_class digit: -0.") and "beyond twice" in said
    same = raised(0)
    same["excess"] = same.excess * 0
    same = loss_cells(same, ["token_class"]).assign_attrs(compared=1, reference="old")
    assert "within twice its error" in readings.parts(same)


def test_why_names_winner_rival_and_parts():
    one = make_margin()
    assert readings.why(one) == (
        "'\u2423a' over the target '\u21b5' by +2.00 nat: bias +0.50, prior +1.50, context +0.00. "
        "It wins by its bias or prior, either."
    )
    assert "over the runner-up" in readings.why(one.assign_coords(correct=("record", [True])))


def make_margin():
    """Make the margin of one record, which bias or prior suffice for."""
    numbers = {"margin": 2.0, "bias": 0.5, "prior": 1.5, "context": 0.0}
    data = {name: variable("record", [value], name, "nat") for name, value in numbers.items()}
    data["verdict"] = variable("record", ["both"], "verdict")
    coords = {"winner": [" a"], "rival": ["\n"], "correct": [False]}
    return xr.Dataset(data, coords={name: ("record", value) for name, value in coords.items()})
