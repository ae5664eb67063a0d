"""Two runs: parts sum to the difference, errors are paired, seeds are told apart from text."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import t
from token_tables import frame_of

from workbench import readings
from workbench.diagnostics import Sample, seed_results, token_difference
from workbench.diagnostics.token_difference import _seed_spread
from workbench.evaluation import bits_per_byte, ratio_error
from workbench.folder import InputError, RunFolder
from workbench.text import byte_tokenizer


@pytest.fixture
def pair(tiny_network, tiny_data):
    """A network, and the same with digits' and letters' losses to be edited."""
    one = Sample(model=tiny_network, data=tiny_data, sequence_length=16)
    two = Sample(model=tiny_network, data=tiny_data, sequence_length=16)
    two.__dict__["table"] = one.table.copy(deep=True)
    return one, two


def shifted(sample, by, where=slice(None)):
    """Edit the losses of a sample's table."""
    sample.table.nll.values[where] += by
    return sample


def test_classes_sum_exactly_to_the_difference(pair):
    one, two = pair
    noise = np.random.default_rng(0).normal(0.02, 0.3, one.table.sizes["token"])
    shifted(two, noise)
    found = token_difference(one, two)
    expected = bits_per_byte(one.table).bits_per_byte - bits_per_byte(two.table).bits_per_byte
    assert float(found.excess.sum()) == pytest.approx(expected, abs=1e-12)
    assert float(found.total_excess) == pytest.approx(expected, abs=1e-12)
    table = one.table
    error = ratio_error(-noise / np.log(2), table.bytes.values, table.group.values)
    assert float(found.total_excess_standard_error) == pytest.approx(error)
    assert np.isnan(found.seed_error)


def test_a_planted_gain_pays_and_noise_does_not(pair):
    one, two = pair
    noise = np.random.default_rng(1).normal(0, 0.3, one.table.sizes["token"])
    shifted(two, noise)
    quiet = token_difference(one, two, seeds=[[2.0, 2.1], [1.9, 2.05]])
    assert "within noise" in readings.token_loss(quiet)
    spaces = one.table.token_class.values == 3
    found = token_difference(one, shifted(two, 3.0, spaces))
    said = readings.token_loss(found)
    assert "it pays on this text, not able to judge by seed (no seeds)" in said
    assert "Most by whitespace" in said and said.startswith("The first run differs from the other")
    named = readings.token_loss(token_difference(one, two, names=("new", "old")))
    assert named.startswith("new differs from old by ")
    worse = token_difference(two, one)
    assert "it does not pay" in readings.token_loss(worse)
    unsure = token_difference(one, two, seeds=[[2.0, 4.0, 3.0], [3.0], [1.0, 3.0]])
    assert float(unsure.seed_error) == pytest.approx(np.sqrt(2 * (2 + 2) / 3))
    assert "within noise" in readings.token_loss(unsure), "seeds differ more than the runs"


def test_few_seeds_are_not_judged_and_their_spread_is_taken_by_its_freedom(pair):
    one, two = pair
    shifted(two, 0.3)  # every token alike
    few = token_difference(one, two, seeds=[[2.0, 2.001], [2.0, 2.001]])
    assert (few.attrs["seeds"], few.attrs["seed_degrees"]) == (2, 1), "one configuration"
    said = readings.token_loss(few)
    assert "not able to judge by seed (2 seeds)" in said and "0.0010 from 2 seeds" in said
    change = abs(float(few.total_excess))
    spread = change / 2.5 / np.sqrt(2)  # 2.5 standard errors of a difference
    seeds = [(np.array([-1, -1, 2]) * spread / np.sqrt(3) + at).tolist() for at in (2, 2.1)]
    found = token_difference(one, two, seeds=seeds)
    assert float(found.seed_error) == pytest.approx(change / 2.5)
    assert found.attrs["seed_quantile"] == pytest.approx(t.ppf(0.975, 4)) and change > 0
    assert "within noise" in readings.token_loss(found), "2.5 errors of 4 degrees are 2.78 short"
    closer = [(np.mean(each) + (np.array(each) - np.mean(each)) / 2).tolist() for each in seeds]
    assert readings.token_loss(token_difference(one, two, seeds=closer)).count("it pays.") == 1


def test_two_sets_of_seeds_alone_seldom_differ():
    """Draws of one distribution: at most one in twenty is called a difference."""
    rng = np.random.default_rng(0)
    alarms = {"t": 0, "normal": 0}
    for _ in range(2000):
        first, second = rng.normal(2, 0.01, 3).tolist(), rng.normal(2, 0.01, 3).tolist()
        error, attrs = _seed_spread([first, second])
        change = abs(rng.normal(0, 0.01 * np.sqrt(2)))
        alarms["t"] += change > attrs["seed_quantile"] * error
        alarms["normal"] += change > 2 * error
    assert 60 < alarms["t"] < 140 < alarms["normal"]


def test_seeds_that_diverged_are_counted(pair):
    found = token_difference(*pair, seeds=[[2.0, 2.1, None], [2.0, 2.2, np.nan, 2.1]])
    assert (found.attrs["seeds"], found.attrs["seeds_not_finite"]) == (5, 2)
    assert "from 5 seeds, 2 not finite" in readings.token_loss(found)
    healthy = token_difference(*pair, seeds=[[2.0, 2.1], [2.0, 2.2, 2.1]])
    assert "not finite" not in readings.token_loss(healthy)
    assert float(found.seed_error) == float(healthy.seed_error)


def test_other_tokenizers_are_compared_by_document(pair, tiny_data):
    one, two = pair
    other = replace(tiny_data, tokenizer=replace(byte_tokenizer(), model=b"another"))
    apart = Sample(model=two.model, data=other, sequence_length=16)
    apart.__dict__["table"] = two.table
    noise = np.random.default_rng(2).normal(0, 0.3, one.table.sizes["token"])
    shifted(apart, noise)
    apart.table.bytes.values[-1] += 1  # the last document is not the same text
    found = token_difference(one, apart)
    frame = frame_of(one.table).assign(noise=noise)
    frame = frame[frame.document != frame.document.max()]
    bits = -frame.groupby("document").noise.sum() / np.log(2)
    np.testing.assert_allclose(found.excess, bits / frame.bytes.sum())
    assert float(found.total_excess) == pytest.approx(float(found.excess.sum()))
    assert "token_class" not in found.dims and "Most by document" in readings.token_loss(found)


def test_texts_that_differ_are_refused(pair, tiny_data):
    one, _ = pair
    corpus = SimpleNamespace(hash="other", name="other")
    foreign = SimpleNamespace(data=SimpleNamespace(corpus=corpus))
    with pytest.raises(InputError, match="judged on"):
        token_difference(one, foreign)


def test_seeds_are_runs_that_differ_in_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    settings = {
        "a": {"seed": 1, "score": 2.0},
        "b": {"seed": 2, "score": 2.2},
        "other": {"seed": 3, "score": 9.0, "model": {"n_layer": 5}},
        "sliding": {"seed": 4, "score": 1.0, "protocol": "sliding:8"},
        "unscored": {"seed": 5},
        "diverged": {"seed": 6, "score": float("nan")},
    }
    for name, each in settings.items():
        record = {"schema_version": 1, "name": name, "status": "finished", "seed": each["seed"]}
        record["model"] = each.get("model", {"n_layer": 2})
        if "score" in each:
            protocol = each.get("protocol", "full")
            record["evaluation"] = {"bits_per_byte": each["score"], "protocol": protocol}
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text(json.dumps(record))
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.json").write_text("{")
    assert seed_results(RunFolder(tmp_path / "runs" / "a")) == [2.0, 2.2, None]
    assert seed_results(RunFolder(tmp_path / "runs" / "other")) == [9.0]
