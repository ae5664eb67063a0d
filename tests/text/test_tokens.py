"""Batches and windows against rings, loops and sets written out by hand."""

from itertools import cycle, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.folder import InputError
from workbench.text import IGNORED, Tokens, record_batches, rows, stream_batches, windows


def packed(ids, starts=(0,)):
    return Tokens(ids=np.asarray(ids, np.int32), starts=np.asarray(starts, np.int64))


@st.composite
def texts(draw, min_size=1, max_size=60, n_id=5):
    """Draw a packed split of one or more documents."""
    ids = draw(st.lists(st.integers(0, n_id - 1), min_size=min_size, max_size=max_size))
    cuts = draw(st.sets(st.integers(1, max(1, len(ids) - 1)), max_size=5))
    return packed(ids, [0, *sorted(cut for cut in cuts if cut < len(ids))])


@st.composite
def record_sets(draw):
    """Draw records of 2 to 7 ids, each with at least one answer."""
    lengths = draw(st.lists(st.integers(2, 7), min_size=1, max_size=9))
    total = sum(lengths)
    ids = draw(st.lists(st.integers(0, 9), min_size=total, max_size=total))
    starts = np.cumsum([0, *lengths])[:-1]
    answers = np.array(draw(st.lists(st.booleans(), min_size=total, max_size=total)))
    answers[np.cumsum(lengths) - 1] = True
    return Tokens(ids=np.array(ids, np.int32), starts=starts, answers=answers)


# --- tokens ----------------------------------------------------------------------------------


def test_documents_by_hand():
    tokens = packed(range(7), [0, 3, 4])
    assert tokens.n_document == 3
    assert [tokens.ids[tokens.document(n)].tolist() for n in range(3)] == [
        [0, 1, 2],
        [3],
        [4, 5, 6],
    ]
    assert tokens.document_of(np.arange(7)).tolist() == [0, 0, 0, 1, 2, 2, 2]


# --- the stream ------------------------------------------------------------------------------


def test_the_ring_by_hand():
    """Ten tokens, two micro-batches of one row of two: each takes three tokens and moves on."""
    batch = stream_batches(packed(range(10)), sequence_length=2, tokens_per_step=4, micro_batches=2)
    taken = [np.concatenate([x, y[:, -1:]], axis=1).tolist() for x, y in map(batch, range(4))]
    assert taken == [
        [[0, 1, 2], [3, 4, 5]],
        [[6, 7, 8], [9, 0, 1]],
        [[2, 3, 4], [5, 6, 7]],
        [[8, 9, 0], [1, 2, 3]],
    ]


@given(
    n_id=st.integers(1, 90),
    sequence_length=st.integers(1, 4),
    rows_each=st.integers(1, 3),
    micro_batches=st.integers(1, 4),
    n_step=st.integers(1, 4),
)
def test_the_stream_against_a_ring(n_id, sequence_length, rows_each, micro_batches, n_step):
    local = sequence_length * rows_each
    sizes = {
        "sequence_length": sequence_length,
        "tokens_per_step": local * micro_batches,
        "micro_batches": micro_batches,
    }
    if n_id < local + 1:
        with pytest.raises(InputError, match="training split"):
            stream_batches(packed(range(n_id)), **sizes)
        return
    batch = stream_batches(packed(range(n_id)), **sizes)
    ring = cycle(range(n_id))
    steps = []
    for _ in range(n_step):
        inputs, targets = [], []
        for _ in range(micro_batches):
            span = list(islice(ring, local + 1))
            for row in range(rows_each):
                at = row * sequence_length
                inputs.append(span[at : at + sequence_length])
                targets.append(span[at + 1 : at + 1 + sequence_length])
        steps.append((inputs, targets))
    for step in reversed(range(n_step)):  # a step depends on its number alone
        found = batch(step)
        assert [part.tolist() for part in found] == list(steps[step])
        assert all(part.dtype == np.int64 for part in found)


def test_sizes_that_do_not_divide_get_a_proposal():
    with pytest.raises(InputError, match=r"multiple of .* = 32.*Take 96\."):
        stream_batches(packed(range(999)), sequence_length=16, tokens_per_step=100, micro_batches=2)
    with pytest.raises(InputError, match=r"Take 32\."):
        stream_batches(packed(range(999)), sequence_length=16, tokens_per_step=5, micro_batches=2)


# --- records ---------------------------------------------------------------------------------


def test_rows_by_hand():
    answers = np.array([0, 0, 1, 0, 1, 1], bool)
    tokens = Tokens(
        ids=np.array([9, 1, 2, 9, 3, 4], np.int32), starts=np.array([0, 3]), answers=answers
    )
    inputs, targets = rows(tokens, 4)
    assert inputs.tolist() == [[9, 1, 0, 0], [9, 3, 0, 0]]
    assert targets.tolist() == [[IGNORED, 2, IGNORED, IGNORED], [3, 4, IGNORED, IGNORED]]
    everything = rows(packed([9, 1, 2], [0]), 2)[1]
    assert everything.tolist() == [[1, 2]], "without answers all targets count"


def test_a_record_that_does_not_fit_is_refused():
    tokens = packed(range(8), [0, 2])
    assert rows(tokens, 5)[0].shape == (2, 5)
    with pytest.raises(InputError, match="at least 5, the longest record"):
        rows(tokens, 4)
    with pytest.raises(InputError, match="at least 5"):
        record_batches(tokens, sequence_length=4, tokens_per_step=8, seed=0)


@given(record_sets(), st.integers(1, 5), st.integers(0, 3))
def test_each_record_once_an_epoch(tokens, per_step, seed):
    marked = Tokens(  # the first id of a record tells which it is
        ids=np.where(
            np.isin(np.arange(len(tokens.ids)), tokens.starts),
            100 + np.cumsum(np.isin(np.arange(len(tokens.ids)), tokens.starts)),
            tokens.ids,
        ).astype(np.int32),
        starts=tokens.starts,
        answers=tokens.answers,
    )
    sizes = {"sequence_length": 6, "tokens_per_step": 6 * per_step}
    batch = record_batches(marked, **sizes, seed=seed)
    n_record, n_step = tokens.n_document, 3 * tokens.n_document
    drawn = [int(first) - 101 for step in range(n_step) for first in batch(step)[0][:, 0]]
    assert len(drawn) == n_step * per_step
    for epoch in range(len(drawn) // n_record):
        assert sorted(drawn[epoch * n_record : (epoch + 1) * n_record]) == list(range(n_record))
    inputs, targets = rows(marked, 6)
    again = record_batches(marked, **sizes, seed=seed)(1)
    assert np.array_equal(again[0], inputs[drawn[per_step : 2 * per_step]])
    assert np.array_equal(again[1], targets[drawn[per_step : 2 * per_step]])


def test_epochs_and_seeds_differ_in_order():
    tokens = packed(np.repeat(np.arange(40), 2), np.arange(0, 80, 2))
    orders = {
        (seed, epoch): tuple(
            record_batches(tokens, sequence_length=1, tokens_per_step=40, seed=seed)(epoch)[0][:, 0]
        )
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    assert tuple(range(40)) not in orders.values()


# --- windows ---------------------------------------------------------------------------------


def scored(tokens, **options):
    """Return (offset, target, row's first offset) of every scored target, in order."""
    found = []
    for window in windows(tokens, **options):
        assert window.inputs.shape == window.targets.shape == window.offsets.shape
        for inputs, targets, offsets in zip(
            window.inputs, window.targets, window.offsets, strict=True
        ):
            assert (tokens.ids[offsets - 1] == inputs).all(), "inputs are the text before"
            found += [
                (int(offset), int(target), int(offsets[0]) - 1)
                for offset, target in zip(offsets, targets, strict=True)
                if target != IGNORED
            ]
    return found


@given(texts(min_size=2, n_id=9), st.integers(1, 12), st.integers(1, 5))
def test_full_windows_score_each_target_once(tokens, length, batch):
    options = {"sequence_length": length, "batch": batch}
    n_target = len(tokens.ids) - 1
    if n_target < length:
        with pytest.raises(InputError, match="validation split"):
            scored(tokens, **options)
        return
    found = scored(tokens, **options)
    whole = n_target // length * length
    assert [offset for offset, _, _ in found] == list(range(1, whole + 1)), "remainder dropped"
    assert all(target == tokens.ids[offset] for offset, target, _ in found)
    assert all(first == (offset - 1) // length * length for offset, _, first in found)


@given(texts(min_size=2, n_id=9), st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_sliding_windows_score_every_target_once(tokens, length, stride, batch):
    stride = min(stride, length)
    options = {"sequence_length": length, "stride": stride, "batch": batch}
    n_target = len(tokens.ids) - 1
    if n_target < length:
        with pytest.raises(InputError, match="validation split"):
            scored(tokens, **options)
        return
    found = scored(tokens, **options)
    assert [offset for offset, _, _ in found] == list(range(1, n_target + 1)), "tail included, once"
    assert all(target == tokens.ids[offset] for offset, target, _ in found)
    for offset, _, first in found:
        context = offset - first
        assert context == offset if offset <= length else length - stride < context <= length


def test_sliding_by_hand():
    found = scored(packed(range(12)), sequence_length=6, stride=4)
    assert [first for _, _, first in found] == [0] * 6 + [4] * 4 + [5]


@given(st.integers(1, 60), st.sampled_from([None, 1, 3, 8]), st.integers(1, 3))
def test_a_limit_is_a_beginning(limit, stride, batch):
    tokens = packed(np.arange(50))
    options = {"sequence_length": 8, "stride": stride, "batch": batch}
    everything, found = scored(tokens, **options), scored(tokens, **options, limit=limit)
    assert found == everything[: len(found)]
    assert len(found) <= max(limit, 8)
    assert len(found) > min(limit, len(everything)) - 8, "no more is left out than a row"


@pytest.mark.parametrize("stride", [-1, 9])
def test_a_stride_that_does_not_fit_is_refused(stride):
    with pytest.raises(InputError, match="stride"):
        scored(packed(range(50)), sequence_length=8, stride=stride)


@given(record_sets(), st.integers(1, 4))
def test_record_windows_score_the_answers(tokens, batch):
    found = scored_records(tokens, sequence_length=6, batch=batch)
    assert tokens.answers is not None
    expected = [
        (offset, int(tokens.ids[offset]))
        for offset in range(len(tokens.ids))
        if tokens.answers[offset] and offset not in set(tokens.starts.tolist())
    ]
    assert found == expected


def scored_records(tokens, **options):
    return [
        (int(offset), int(target))
        for window in windows(tokens, **options)
        for offset, target in zip(window.offsets.ravel(), window.targets.ravel(), strict=True)
        if target != IGNORED
    ]


def test_a_limit_on_records_keeps_whole_records():
    ids, starts = np.arange(12, dtype=np.int32), np.array([0, 4, 8])
    answers = np.array([0, 0, 1, 1] * 3, bool)
    tokens = Tokens(ids=ids, starts=starts, answers=answers)
    for limit, expected in ((1, 2), (2, 2), (3, 2), (4, 4), (5, 4), (6, 6), (99, 6)):
        found = scored_records(tokens, sequence_length=5, limit=limit)
        assert len(found) == expected, limit
