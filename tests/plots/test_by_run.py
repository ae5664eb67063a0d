"""Results of two runs in one figure: both are drawn, and each says what it said alone."""

import json

import numpy as np
import pytest
import xarray as xr
from planted_margins import HOSTILE, damping, frequency, lens, network
from planted_ranks import embedded, one_matrix, truncated
from token_tables import make_table

from workbench import diagnostics, plots
from workbench.plots import View
from workbench.plots.by_run import by_run, join_runs
from workbench.result import check, variable


def curve(*, planted=False):
    """Make the loss around an alpha, which is learned higher when planted."""
    costs = {"cost": [0.2, 0.0, 0.1], "cost_standard_error": [0.01] * 3}
    data = {name: variable("setting", each, name, "bit/byte") for name, each in costs.items()}
    for name in ("mean_cost", "mean_cost_standard_error"):
        data[name] = variable((), 0.05, name, "bit/byte")
    attrs = {"learned": 2.0 if planted else 1.0, "init": 0.5, "small": 0.002, "visit": 3}
    return xr.Dataset(data, coords={"setting": [0.0, 1.0, 2.0]}, attrs=attrs)


def table(*, planted=False):
    return make_table(seed=int(planted))


MAKERS = {
    "components": lambda planted: network(planted=planted, n_visit=2 + planted),
    "damping": lambda planted: damping(planted=planted),
    "unigram_prior": lambda planted: frequency(planted=planted, count=60 + 5 * planted),
    "logit_lens": lambda planted: lens(planted=planted),
    "spectrum": lambda planted: one_matrix(ratio=0.7 if planted else 0.5),
    "truncation": lambda planted: truncated(planted=planted),
    "embedding": lambda planted: embedded(planted=planted),
    "alpha_curve": lambda planted: curve(planted=planted),
    "position_loss": lambda planted: diagnostics.position_loss(table(planted=planted)),
    "calibration": lambda planted: diagnostics.calibration(table(planted=planted)),
}


def pair(noun):
    return [MAKERS[noun](planted) for planted in (False, True)]


@pytest.mark.parametrize("noun", MAKERS)
def test_joined_results_come_apart_as_they_were(noun, tmp_path):
    both = pair(noun)
    joined = check(join_runs(both, ["one", "two"]))
    saved = View(plot=noun, data=joined, sentence="").save(tmp_path)
    for found in (joined, View.open(saved).data):
        for (_, each), made in zip(by_run(found), both, strict=True):
            assert json.dumps(each.attrs, default=float) == json.dumps(made.attrs, default=float)
            for name in made.variables:
                np.testing.assert_array_equal(each[name].values, made[name].values)


def numbers(figure):
    """Return the coordinates of every trace along each axis that shows numbers."""
    drawn = [(list(trace.x), list(trace.y)) for trace in figure.data]
    return {json.dumps([a for a in each if type(a[0]) is not str]) for each in drawn if each[0]}


@pytest.mark.parametrize("noun", sorted(set(MAKERS) - {"components"}))
def test_every_curve_of_either_run_is_in_the_figure_of_both(noun):
    both = pair(noun)
    joined = getattr(plots, noun)(join_runs(both, ["one", HOSTILE]))
    alone = [getattr(plots, noun)(each) for each in both]
    shared = {"reference"}  # drawn where one run stands alone
    for figure in alone:
        figure.data = [trace for trace in figure.data if trace.name not in shared]
        assert numbers(figure) <= numbers(joined)
    drawn = joined.to_json()
    assert "&lt;b&gt;" in json.dumps(json.loads(drawn)) and HOSTILE not in drawn


def test_two_waterfalls_share_their_rows_and_each_adds_up():
    both = pair("components")
    first, second = plots.components(join_runs(both, ["one", "two"]), most=5).data
    assert first.y == second.y and (first.name, second.name) == ("one", "two")
    for bars, made in ((first, both[0]), (second, both[1])):
        assert sum(bars.x[:-1]) == pytest.approx(float(made["mean"].sum()), rel=1e-3)
        np.testing.assert_allclose(bars.base[1:-1], np.cumsum(bars.x)[:-2], atol=1e-3)
    assert (
        first.y[-1]
        == f"margin  {sum(both[0]['mean'].values):+.2f}, {sum(both[1]['mean'].values):+.2f}"
    )


def test_rows_that_are_not_judged_are_left_out_and_the_nearest_rows_are_listed():
    ds = embedded(planted=True).assign(twin=variable("vocabulary", [1, 2, 1], "nearest"))
    ds["count"] = variable("vocabulary", [5, 30, 1000], "times", "token")
    ranks, pairs = plots.embedding(ds).data
    assert list(ranks.y) == ["all, n 40", "byte, n 20"], "digit has no rank"
    assert pairs.y == ("'\\x1b' ~ '\u2423b'  (30, 1,000 times)", "'a' ~ '\\x1b'  (5, 30 times)")
    assert pairs.x == (0.99, 0.1)
