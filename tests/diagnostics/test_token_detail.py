"""Cells, calibration, positions, confusions: against loops, and against what was planted."""

import numpy as np
import pytest
from token_tables import CONTEXT, frame_of, make_table

from workbench.diagnostics import (
    annotated,
    calibration,
    confusions,
    loss_cells,
    position_loss,
    worded,
)
from workbench.diagnostics.calibration import BINS
from workbench.diagnostics.position_loss import FIRST
from workbench.evaluation import bits_per_byte, token_table
from workbench.result import grouped_ratio
from workbench.text import TOKEN_CLASSES, byte_tokenizer


def test_cells_of_any_crossing_are_a_group_by_and_sum_to_the_whole():
    table = make_table()
    frame = frame_of(table)
    frame["bin"] = np.select([frame.position < 2**k for k in range(1, 6)], range(1, 6))
    frame.loc[frame.position == 0, "bin"] = 0
    by = ["token_class", "decile", "repetition", "bin"]
    found = loss_cells(table, by)
    assert found.bin.values.tolist() == ["0", "1", "2 to 3", "4 to 7", "8 to 15", "16 to 31"]
    assert float(found.contribution.sum()) == pytest.approx(bits_per_byte(table).bits_per_byte)
    assert float(found.excess.sum()) == pytest.approx(frame.excess.sum() / frame.bytes.sum())
    cells = frame.groupby(["token_class", "decile", "repeated", "bin"])
    means = cells[["nll", "excess"]].agg(["size", "mean", "sum"])
    for (kind, decile, again, place), row in means.iloc[::17].iterrows():
        here = found.isel(token_class=kind, decile=decile, repetition=int(again), bin=place)
        assert float(here.tokens) == row["nll", "size"]
        assert float(here.loss) == pytest.approx(row["nll", "mean"])
        assert float(here.excess) == pytest.approx(row["excess", "sum"] / frame.bytes.sum())


def ece_by_loop(frame):
    """Expected calibration error, bin by bin."""
    total = 0.0
    for number in range(BINS):
        low, high = number / BINS, (number + 1) / BINS
        rows = frame[(frame.top1_probability >= low) & (frame.top1_probability < high)]
        if len(rows):
            off = rows.top1_probability.mean() - (rows["rank"] == 1).mean()
            total += abs(off) * len(rows) / len(frame)
    return total


def test_calibration_is_that_of_a_loop():
    table = make_table()
    found, frame = calibration(table), frame_of(table)
    assert float(found.ece.sel(token_class="all")) == pytest.approx(ece_by_loop(frame))
    for number, name in enumerate(TOKEN_CLASSES):
        rows, here = frame[frame.top1_class == number], found.sel(token_class=name)
        if len(rows):
            assert float(here.ece) == pytest.approx(ece_by_loop(rows))
            off = (rows.top1_probability - (rows["rank"] == 1)).mean()
            assert float(here.class_gap) == pytest.approx(off)
            assert float(here.class_surprise) == pytest.approx((rows.nll - rows.entropy).mean())
        else:
            assert np.isnan(here.ece) and float(here.tokens.sum()) == 0
    one = frame[(frame.top1_probability * BINS).astype(int) == 4]
    here = found.sel(token_class="all").isel(bin=4)
    assert float(here.accuracy) == pytest.approx((one["rank"] == 1).mean())


def test_calibrated_draws_are_not_blamed_and_overconfident_ones_are():
    table = make_table(n_token=40_000)
    every = calibration(table).sel(token_class="all")
    assert float(every.ece) < 2 * float(every.ece_expected) < 0.02
    assert abs(float(every.class_gap)) < 3 * float(every.class_gap_standard_error)
    digits = table.top1_class.values == TOKEN_CLASSES.index("digit")
    sure = np.where(digits, table.top1_probability**0.5, table.top1_probability)
    planted = calibration(table.assign(top1_probability=table.top1_probability.copy(data=sure)))
    beyond = planted.class_gap / planted.class_gap_standard_error
    assert beyond.sel(token_class="digit") > 10
    assert np.nanmax(np.abs(beyond.drop_sel(token_class=["digit", "all"]))) < 4
    here = planted.sel(token_class="digit")
    assert here.ece - 4 * here.ece_standard_error > here.ece_expected


def test_a_planted_penalty_of_first_positions_is_measured():
    table = make_table(n_token=16_000)
    healthy = position_loss(table)
    assert abs(float(healthy.context_gain)) < 3 * float(healthy.context_gain_standard_error)
    early = table.position.values < min(FIRST, CONTEXT // 4)
    planted = position_loss(table.assign(nll=table.nll + 0.9 * early))
    gain = float(planted.context_gain - healthy.context_gain)
    assert gain == pytest.approx(0.9)
    assert float(planted.context_gain) > 4 * float(planted.context_gain_standard_error)
    added = 0.9 * early.sum() / np.log(2) / float(table.bytes.sum())
    assert float(planted.first_penalty - healthy.first_penalty) == pytest.approx(added)


def test_a_planted_gap_at_sentences_is_measured_against_other_words():
    table = make_table(n_token=16_000)
    healthy, opens = position_loss(table), table.opens_sentence.values
    assert int(healthy.sentences) == opens.sum()
    assert abs(float(healthy.sentence_gap)) < 3 * float(healthy.sentence_gap_standard_error)
    hard = table.assign(nll=table.nll + 0.5 * opens)  # hard for the reference too
    found = position_loss(hard)
    assert float(found.sentence_gap - healthy.sentence_gap) == pytest.approx(0.5)
    assert float(found.sentence_excess) == pytest.approx(float(healthy.sentence_excess))
    words = frame_of(hard)[lambda f: f.token_class == TOKEN_CLASSES.index("word_start")]
    mean = words.groupby("opens_sentence").nll.mean()
    assert float(found.sentence_gap) == pytest.approx(mean[True] - mean[False])


@pytest.fixture
def tiny(tiny_data, tiny_network):
    """The table of a random network on the tiny text, annotated."""
    split = tiny_data.validation
    table = token_table(tiny_network, split, tiny_data.tokenizer, sequence_length=16)
    return annotated(table, tiny_data)


def test_confusions_rank_pairs_by_bits(tiny, tiny_data):
    rows = frame_of(tiny)
    wrong = rows[rows["rank"] > 1].groupby(["id", "top1"]).nll.agg(["size", "sum"])
    wrong = wrong.sort_values("sum", ascending=False)
    found = confusions(tiny, tiny_data.tokenizer, most=5)
    pieces = [chr(at) if at < 128 else tiny_data.tokenizer.pieces[at] for at in range(257)]
    total = rows.bytes.sum() * np.log(2)
    for at, ((target, winner), row) in enumerate(wrong.iloc[:5].iterrows()):
        here = found.isel(pair=at)
        assert (here.target.item(), here.winner.item()) == (pieces[target], pieces[winner])
        assert float(here.contribution) == pytest.approx(row["sum"] / total)
        assert int(here.tokens) == row["size"]
        assert int(here.of_target) == (rows.id == target).sum()
        assert tiny_data.validation.ids[int(here.offset)] == target
    spaces = confusions(tiny, tiny_data.tokenizer, token_class="whitespace")
    assert set(spaces.target.values) == {pieces[ord(" ")]}
    right = tiny.assign(rank=tiny["rank"] * 0 + 1)
    assert confusions(right, tiny_data.tokenizer).sizes["pair"] == 0


def test_confusions_of_two_runs_are_the_difference_pair_by_pair():
    one, two = make_table(seed=0), make_table(seed=0)
    two["top1"].values[::3] = 7  # predicts otherwise ...
    two["rank"].values[::3] = 2
    two["nll"].values[:] *= 1.1  # ... and pays more
    tokenizer = byte_tokenizer()
    found = confusions(one, tokenizer, against=two, most=9)
    sums = {}
    for sign, frame in ((1, frame_of(one)), (-1, frame_of(two))):
        for row in frame[frame["rank"] > 1].itertuples():
            cell = sums.setdefault((row.id, row.top1), {})
            cell[row.group] = cell.get(row.group, 0) + sign * row.nll
    dearest = sorted(sums, key=lambda pair: -abs(sum(sums[pair].values())))[:9]
    frame, pieces = frame_of(one), [chr(at) for at in range(60)]
    size = frame.groupby("group").bytes.sum()
    for at, (target, winner) in enumerate(dearest):
        here, cell = found.isel(pair=at), sums[target, winner]
        assert (here.target.item(), here.winner.item()) == (pieces[target], pieces[winner])
        bits = np.array([cell.get(each, 0.0) for each in size.index]) / np.log(2)
        value, error = grouped_ratio(bits, size.to_numpy(dtype=float))
        assert float(here.contribution) == pytest.approx(value)
        assert float(here.contribution_standard_error) == pytest.approx(error)
        counts = [
            int(((each.id == target) & (each.top1 == winner) & (each["rank"] > 1)).sum())
            for each in (one, two)
        ]
        assert [int(here.tokens), int(here.other_tokens)] == counts
    same = confusions(one, tokenizer, against=one)
    assert float(np.abs(same.contribution).max()) < 1e-12, "a run does not differ from itself"


def test_annotation_tells_neighbours_and_sentences(tiny, tiny_data):
    ids = tiny_data.validation.ids
    np.testing.assert_array_equal(ids[tiny.offset], tiny.id)
    np.testing.assert_array_equal(ids[tiny.offset - 1], tiny.previous)
    raw = tiny_data.tokenizer.token_bytes
    for at in np.flatnonzero(tiny.opens_sentence)[:20]:
        before = b"".join(raw[each] for each in ids[: int(tiny.offset[at])])
        assert before.rstrip().endswith(b".") and before[-1:].isspace()
    told = worded(tiny.isel(token=[3, 40]), tiny_data)
    first = tiny_data.tokenizer.decode(ids[: int(tiny.offset[3])])
    assert told.before.values[0] == first and told.target.values[0] == chr(int(tiny.id[3]))
    np.testing.assert_allclose(np.log(told.probability), -tiny.nll[[3, 40]])


def test_another_run_serves_as_the_reference(tiny, tiny_data):
    against = tiny.assign(nll=tiny.nll - 0.25).assign_attrs(reference="a better run")
    found = annotated(tiny, tiny_data, against=against)
    np.testing.assert_allclose(found.excess * np.log(2), 0.25)
    assert found.attrs["reference"] == "a better run"
