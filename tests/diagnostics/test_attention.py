"""Attention: against a loop over queries and keys, and heads planted by hand."""

import math

import numpy as np
import pytest
import torch

from workbench.diagnostics import sweep
from workbench.diagnostics.attention import attention
from workbench.model import new_network, preset, record
from workbench.text import open_data, windows

NAMES = ("entropy", "sink", "previous", "largest", "same_word")


def measured(model, data, length=16):
    reducer = attention(model)
    split = data.validation, data.tokenizer
    return reducer.result(sweep(model, *split, sequence_length=length, reducers=[reducer]))


def by_hand(query, key, ids, head, key_head, t):
    """Attend with one query, exactly as written down in a textbook."""
    scores = [
        sum(a * b for a, b in zip(query[head, t].tolist(), key[key_head, j].tolist(), strict=True))
        / math.sqrt(query.shape[-1])
        for j in range(t + 1)
    ]
    weights = [math.exp(s - max(scores)) for s in scores]
    p = [w / sum(weights) for w in weights]
    same = [p[j] for j in range(t) if ids[j] == ids[t]]
    return {
        "entropy": -sum(x * math.log(x) for x in p if x > 0) / math.log(t + 1),
        "sink": p[0],
        "previous": p[t - 1],
        "largest": max(p),
        "same_word": sum(same) if same else math.nan,
    }


def test_measures_are_those_of_an_explicit_softmax(tiny_network, tiny_data):
    window = next(windows(tiny_data.validation, sequence_length=16, batch=10_000))
    with torch.inference_mode(), record(tiny_network, ["visit.1.query", "visit.1.key"]) as seen:
        tiny_network(torch.from_numpy(window.inputs))
    query, key = seen["visit.1.query"].double(), seen["visit.1.key"].double()
    found = measured(tiny_network, tiny_data).sel(visit=1)
    heads = query.shape[1] // key.shape[1]
    for head in (0, query.shape[1] - 1):
        told = [
            by_hand(query[row], key[row], window.inputs[row], head, head // heads, t)
            for row in range(len(query))
            for t in range(1, 16)
        ]
        for name in NAMES:
            expected = np.nanmean([each[name] for each in told])
            assert float(found[name][head]) == pytest.approx(expected, rel=1e-5), name
    assert found.attrs["queries"] == 15 * len(query)
    assert found.attrs["even_sink"] == pytest.approx(np.mean([1 / (t + 1) for t in range(1, 16)]))
    assert found.attrs["even_entropy"] == pytest.approx(1)


def test_planted_heads_are_told_apart(tiny_network, tiny_data):
    """Zero gain: even attention. A large one: all on one key."""
    with torch.no_grad():
        tiny_network.blocks[0].attn.q_gain[0] = 0.0
        tiny_network.blocks[0].attn.q_gain[1] = 1e4
    found = measured(tiny_network, tiny_data).sel(visit=0)
    assert float(found.entropy[0]) == pytest.approx(1, abs=1e-6)
    assert float(found.sink[0]) == pytest.approx(found.attrs["even_sink"])
    assert float(found.same_word[0]) == pytest.approx(found.attrs["even_same_word"])
    assert float(found.entropy[1]) < 0.01 and float(found.largest[1]) > 0.99
    assert 0.01 < float(found.entropy[2]) < 0.999, "a healthy head is neither"


def test_long_rows_are_sampled_evenly(tiny_network, tiny_data):
    """Of 256 positions every second is a query."""
    found = measured(tiny_network, tiny_data, length=256)
    n_row = (len(tiny_data.validation.ids) - 1) // 256
    assert found.attrs["queries"] == 128 * n_row


def test_padding_is_not_attended_to():
    data = open_data("closed-world")
    shape = {"n_layer": 2, "d_model": 16, "vocab_size": data.tokenizer.vocab_size}
    model = new_network(preset("demo", **shape), seed=0).eval()
    lengths = np.diff(np.append(data.validation.starts, len(data.validation.ids))) - 1
    found = [measured(model, data, length) for length in (int(lengths.max()), 64)]
    assert found[0].attrs["queries"] == (lengths - 1).sum()
    for name in NAMES:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-5)
