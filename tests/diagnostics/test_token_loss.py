import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_tables import frame_of, make_table

from workbench.diagnostics import token_loss
from workbench.diagnostics.cells import by_cell, norm
from workbench.evaluation import bits_per_byte, ratio_error
from workbench.text import TOKEN_CLASSES

PLANTED = "digit"


def test_sums_agree_with_a_group_by():
    table = make_table()
    found, frame = token_loss(table), frame_of(table)
    bits = frame.nll.sum() / np.log(2)
    for number, name in enumerate(TOKEN_CLASSES):
        rows, here = frame[frame.token_class == number], found.sel(token_class=name)
        assert float(here.tokens) == len(rows)
        assert float(here.token_share) == pytest.approx(len(rows) / len(frame))
        if not len(rows):
            continue
        own = rows.nll.sum() / np.log(2)
        assert float(here.loss) == pytest.approx(rows.nll.mean())
        assert float(here.contribution) == pytest.approx(own / frame.bytes.sum())
        assert float(here.loss_share) == pytest.approx(own / bits)
        for which, part in (("new", rows[~rows.repeated]), ("repeated", rows[rows.repeated])):
            assert float(here[f"tokens_{which}"]) == len(part)
            assert float(here[f"loss_{which}"]) == pytest.approx(part.nll.mean())
        if name != "control":
            assert float(here.bits_per_byte) == pytest.approx(own / rows.bytes.sum())


def test_what_was_not_met_is_nan():
    found = token_loss(make_table())
    absent, control = found.sel(token_class="byte"), found.sel(token_class="control")
    assert float(absent.tokens) == 0
    for name in ("loss", "bits_per_byte", "loss_new", "loss_repeated"):
        assert np.isnan(absent[name])
    assert np.isnan(control.bits_per_byte)  # it has a loss, but stands for no byte
    assert float(control.loss) > 0


@given(
    seed=st.integers(0, 10_000),
    n_token=st.integers(2, 200),
    absent=st.sets(st.integers(1, 6), max_size=5),
)
def test_contributions_sum_to_the_bits_per_byte(seed, n_token, absent):
    table = make_table(seed=seed, n_token=n_token, n_document=3, absent=tuple(absent))
    if not table.bytes.values.any():
        return
    found = token_loss(table)
    total = float(found.contribution.sum(skipna=False))
    assert total == pytest.approx(bits_per_byte(table).bits_per_byte, rel=1e-12)
    assert float(found.token_share.sum(skipna=False)) == pytest.approx(1)
    assert float(found.loss_share.sum(skipna=False)) == pytest.approx(1)
    assert float(found.tokens_new.sum() + found.tokens_repeated.sum()) == n_token


def test_deciles_cut_every_class_exactly():
    table = make_table()
    found, frame = token_loss(table), frame_of(table)
    assert found.decile.values.tolist() == list(range(10))
    np.testing.assert_array_equal(found.tokens_by_decile.sum("decile"), found.tokens)
    cells = frame.groupby(["token_class", "decile"]).nll.agg(["size", "mean"])
    for number, name in enumerate(TOKEN_CLASSES):
        for decile in range(10):
            here = found.sel(token_class=name, decile=decile)
            if (number, decile) in cells.index:
                size, mean = cells.loc[(number, decile)]
                assert float(here.tokens_by_decile) == size
                assert float(here.loss_by_decile) == pytest.approx(mean)
            else:
                assert float(here.tokens_by_decile) == 0 and np.isnan(here.loss_by_decile)


def test_planted_excess_is_recoverable_in_its_class_and_a_healthy_twin_has_none():
    table = make_table()
    healthy = token_loss(table)
    assert (
        (np.abs(healthy.excess) < 3 * healthy.excess_standard_error)
        .where(healthy.tokens > 0, True)
        .all()
    )
    planted = table.copy(deep=True)
    chosen = planted.token_class.values == TOKEN_CLASSES.index(PLANTED)
    planted.excess.values[chosen] += 0.7
    found = token_loss(planted)
    assert found.token_class.values[found.excess.values.argmax()] == PLANTED
    grown = float((found.excess - healthy.excess).sel(token_class=PLANTED))
    assert grown == pytest.approx(0.7 * chosen.sum() / float(table.bytes.sum()))
    assert float(found.total_excess) == pytest.approx(float(found.excess.sum()))
    second = found.sel(token_class="newline")
    assert found.excess.max() - second.excess > 2 * second.excess_lead_standard_error


@given(seed=st.integers(0, 1000), n_document=st.integers(2, 9), whole=st.booleans())
def test_errors_of_cells_are_those_of_one_ratio_at_a_time(seed, n_document, whole):
    table = make_table(n_token=150, n_document=n_document, seed=seed)
    bits, size, group = (table[name].values for name in ("nll", "bytes", "group"))
    cell = table.decile.values
    ratio, deviation = by_cell(bits, size, group=group, cell=cell, n_cell=11, whole=whole)
    for at in range(10):
        own = cell == at
        under = size * (own | whole)
        if under[own | whole].sum() == 0:
            assert np.isnan(ratio[at])
            continue
        keep = own | whole
        expected = ratio_error((bits * own)[keep], under[keep], group[keep])
        assert ratio[at] == pytest.approx((bits * own).sum() / under.sum())
        if expected is not None and len(np.unique(group[under > 0])) == len(np.unique(group[keep])):
            assert norm(deviation[at]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_planted_loss_appears_in_its_class_alone():
    table = make_table()
    planted = table.copy(deep=True)
    chosen = planted.token_class.values == TOKEN_CLASSES.index(PLANTED)
    planted.nll.values[chosen] += 1
    before, after = token_loss(table), token_loss(planted)
    for name in ("loss", "loss_new", "loss_repeated"):
        added = (after[name] - before[name]).fillna(0)
        expected = (added.token_class == PLANTED).astype(float)
        np.testing.assert_allclose(added, expected, atol=1e-12)
    moved = after.contribution - before.contribution
    assert list(moved.token_class.values[np.abs(moved) > 1e-12]) == [PLANTED]
    grown = chosen.sum() / np.log(2) / float(table.bytes.sum())
    assert float(moved.sel(token_class=PLANTED)) == pytest.approx(grown)


def test_standard_error_is_that_of_a_bootstrap_over_documents():
    table = make_table(n_token=6000, n_document=60, seed=3)
    found, frame = token_loss(table), frame_of(table)
    frame["bits"] = frame.nll / np.log(2)
    per_class = frame.pivot_table("bits", "document", "token_class", "sum", fill_value=0)
    size = frame.groupby("document").bytes.sum().to_numpy()
    drawn = np.random.default_rng(5).integers(0, len(size), (3000, len(size)))
    for number in (2, 4, 6):
        draws = per_class[number].to_numpy()[drawn].sum(axis=1) / size[drawn].sum(axis=1)
        error = float(found.contribution_standard_error[number])
        assert error == pytest.approx(draws.std(), rel=0.08)


def test_one_document_has_no_standard_error():
    found = token_loss(make_table(n_document=1))
    assert np.isnan(found.contribution_standard_error).all()


def test_a_loss_that_is_not_finite_is_not_averaged_away():
    table = make_table()
    row = int(np.flatnonzero(table.token_class.values == TOKEN_CLASSES.index(PLANTED))[0])
    table = table.assign(nll=table.nll.where(np.arange(table.sizes["token"]) != row))
    found = token_loss(table)
    assert np.isnan(found.loss.sel(token_class=PLANTED))
    assert np.isnan(found.loss_share).sum() >= 1
    assert np.isfinite(found.loss.sel(token_class="word_start"))
