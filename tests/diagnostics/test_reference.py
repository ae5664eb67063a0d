"""The counting reference, against counts in dictionaries and sums over the vocabulary."""

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.diagnostics import ngrams, reference
from workbench.diagnostics.reference import LEAST_DISCOUNT, offsets
from workbench.evaluation import token_table
from workbench.result import variable


def slow(text, *, vocab_size, order):
    """Interpolated Kneser-Ney, one history at a time."""
    raw = [Counter(map(tuple, np.lib.stride_tricks.sliding_window_view(text, n + 1).tolist()))
           for n in range(order)]  # fmt: skip
    counts = [Counter(gram[1:] for gram in raw[n + 1]) for n in range(order - 1)] + [raw[-1]]

    def probability(history, token):
        p = 1 / vocab_size
        for length, count in enumerate(counts):
            once = sum(1 for each in count.values() if each == 1)
            twice = sum(1 for each in count.values() if each == 2)
            discount = max(LEAST_DISCOUNT, once / max(once + 2 * twice, 1))
            lead = tuple(history[len(history) - length :])
            if length > len(history):
                break
            after = {gram[-1]: c for gram, c in count.items() if gram[:-1] == lead}
            total = sum(after.values())
            if total:
                rest = discount * len(after) / total
                p = max(after.get(token, 0) - discount, 0) / total + rest * p
        return p

    return probability


@settings(max_examples=25)
@given(
    text=st.lists(st.integers(0, 4), min_size=12, max_size=60),
    history=st.lists(st.integers(0, 5), max_size=6),
)
def test_it_sums_to_one_and_is_what_dictionaries_count(text, history):
    model = ngrams(np.array(text), vocab_size=6, order=4)
    expected = slow(text, vocab_size=6, order=4)
    found = []
    for token in range(6):
        line = np.array([*history, token])
        found.append(model(line, np.arange(len(line)))[-1])
        assert found[-1] == pytest.approx(expected(history, token), rel=1e-12)
    assert sum(found) == pytest.approx(1, rel=1e-12)


def test_what_may_not_be_seen_is_not_used():
    text = np.tile([1, 2, 3, 4], 30)
    model = ngrams(text, vocab_size=8)
    full = model(text, np.minimum(np.arange(len(text)), 9))
    blind = model(text, np.zeros(len(text), dtype=int))
    assert full[8:].min() > 0.5 > blind.max(), "the cycle is only known from what is before"
    by_token = defaultdict(set)
    for token, p in zip(text, blind, strict=True):
        by_token[int(token)].add(round(float(p), 12))
    assert all(len(each) == 1 for each in by_token.values()), "without a context one number a token"


@pytest.fixture(scope="module")
def small(tiny_data):
    """A table of the tiny text in windows of 16; the losses do not matter."""
    n, context = 16 * ((len(tiny_data.validation.ids) - 1) // 16), 16
    at = np.arange(1, n + 1)
    columns = {
        "id": tiny_data.validation.ids[at],
        "position": (at - 1) % context,
        "document": tiny_data.validation.document_of(at),
        "nll": np.ones(n),
    }
    data = {name: variable("token", values, name) for name, values in columns.items()}
    return xr.Dataset(data, attrs={"context": context})


def test_the_mixture_sums_to_one_and_sees_one_window(tiny_data, small):
    size, train = tiny_data.tokenizer.vocab_size, tiny_data.train.ids
    found = reference(small, tiny_data)
    assert float(found.weight.sum()) == pytest.approx(1)
    grams = slow(train.tolist(), vocab_size=size, order=5)
    ids = tiny_data.validation.ids
    for row in (0, 1, 15, 16, 37, 101):
        begin, at = 16 * (row // 16), row + 1
        seen = ids[begin:at].tolist()
        follow = [b for a, b in zip(seen, seen[1:], strict=False) if a == seen[-1]]
        total = 0.0
        for token in (int(ids[at]), 97):
            words = seen.count(token) / len(seen)
            pairs = follow.count(token) / len(follow) if follow else words
            total = np.dot(found.weight, [grams(seen[-4:], token), words, pairs])
            if token == int(ids[at]):
                assert np.exp(-found.nll.values[row]) == pytest.approx(total, rel=1e-9)


def test_nothing_after_a_token_or_before_its_window_changes_its_loss(tiny_data, small):
    before = reference(small, tiny_data).nll.values
    ids = tiny_data.validation.ids.copy()
    ids[60:], ids[:30] = 98, 99
    changed = replace(tiny_data, validation=replace(tiny_data.validation, ids=ids))
    after = reference(small, changed).nll.values
    np.testing.assert_allclose(after[32:59], before[32:59])
    assert not np.allclose(after[:29], before[:29])


def test_offsets_point_at_the_targets(tiny_data, tiny_network):
    split = tiny_data.validation
    table = token_table(tiny_network, split, tiny_data.tokenizer, sequence_length=16)
    np.testing.assert_array_equal(split.ids[offsets(table, split)], table.id)
    answers = np.random.default_rng(0).random(len(split.ids)) < 0.3
    records = replace(split, answers=answers)
    length = int(np.diff([*split.starts, len(split.ids)]).max()) - 1
    table = token_table(tiny_network, records, tiny_data.tokenizer, sequence_length=length)
    np.testing.assert_array_equal(split.ids[offsets(table, records)], table.id)
