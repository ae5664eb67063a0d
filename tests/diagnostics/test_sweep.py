"""One pass: the same results whatever the batch, nothing left behind, bounded memory."""

import gc
import sys
import tracemalloc

import numpy as np
import pytest
import torch

from workbench.diagnostics import Reducer, Sample, diagnostics, sweep
from workbench.diagnostics.grouped import BUCKETS, GroupedMeans
from workbench.evaluation import ratio_error, token_table
from workbench.model import new_network, preset
from workbench.text import Tokens, open_data


@pytest.fixture(scope="module")
def samples(tiny_data):
    """A network on text, and one on records of a closed world, every weight random."""
    made = {}
    for name, data, length in (
        ("text", tiny_data, 16),
        ("records", open_data("closed-world"), 32),
    ):
        shape = {"n_layer": 2, "d_model": 16, "vocab_size": data.tokenizer.vocab_size}
        model = new_network(preset("demo", **shape), seed=0).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0.0, 0.3, generator=generator)
        made[name] = Sample(model=model, data=data, sequence_length=length)
    return made


def swept(sample, *, batch=None, limit=None):
    """Feed every reducer that applies in one pass; return the table and the results."""
    started = {
        name: each.start(sample)
        for name, each in diagnostics().items()
        if each.start and not each.lacks(sample)
    }
    table = sweep(
        sample.model,
        sample.data.validation,
        sample.tokenizer,
        sequence_length=sample.sequence_length,
        reducers=list(started.values()),
        batch=batch,
        limit=limit,
    )
    return table, {name: reducer.result(table) for name, reducer in started.items()}


@pytest.mark.parametrize("which", ["text", "records"])
def test_results_do_not_depend_on_the_batch(samples, which):
    expected = swept(samples[which], batch=1)[1]
    assert {"activation", "attention", "residual", "token_loss"} <= set(expected)
    for batch in (3, 8):
        found = swept(samples[which], batch=batch)[1]
        for name, group in expected.items():
            for key, values in group.data_vars.items():
                if values.dtype.kind == "f":
                    np.testing.assert_allclose(
                        found[name][key], values, rtol=1e-6, atol=1e-7, err_msg=f"{name}.{key}"
                    )


def test_every_reducer_sees_the_same_rows_whatever_the_batch(samples, monkeypatch):
    monkeypatch.setattr(sys.modules[sweep.__module__], "SAMPLED_TOKENS", 64)
    sample, met = samples["text"], {}
    for batch in (1, 3, 8):
        rows = met.setdefault(batch, [])
        take = {"embedding": lambda x, seen, rows=rows: rows.extend(seen.inputs.tolist())}
        sweep(
            sample.model,
            sample.data.validation,
            sample.tokenizer,
            sequence_length=16,
            reducers=[Reducer(result=lambda table: table, sites=take)],
            batch=batch,
        )
    assert met[1] == met[3] == met[8]
    assert 1 < len(met[1]) < len(sample.data.validation.ids) // 16


def test_scores_are_those_of_a_plain_evaluation(samples):
    sample = samples["text"]
    plain = token_table(
        sample.model, sample.data.validation, sample.tokenizer, sequence_length=16, batch=3
    )
    np.testing.assert_allclose(swept(sample)[0].nll, plain.nll, rtol=1e-5)


def test_nothing_is_left_on_the_model(samples):
    model = samples["text"].model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    swept(samples["text"])
    assert model.tap.__name__ == "untouched"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def held_after(sample, length):
    """Sweep so many tokens; return the bytes that the reducers hold on to afterwards."""
    reducers = [
        each.start(sample)
        for each in diagnostics().values()
        if each.start and not each.lacks(sample)
    ]
    gc.collect()
    before = tensor_bytes()
    ids = np.resize(sample.data.validation.ids, length)
    split = Tokens(ids=ids, starts=np.arange(0, length, 64))
    tracemalloc.start()
    sweep(sample.model, split, sample.tokenizer, sequence_length=16, reducers=reducers)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held + tensor_bytes() - before


def tensor_bytes():
    """Add up all living tensors; sparse ones, which another test may have left, have no size."""
    living = (each for each in gc.get_objects() if type(each) is torch.Tensor)
    return sum(each.nbytes for each in living if each.layout is torch.strided)


def test_reducers_hold_no_more_after_more_text(samples):
    held_after(samples["text"], 2000)  # what is made once and kept
    few, many = held_after(samples["text"], 2000), held_after(samples["text"], 16_000)
    assert many < few + 4 * 14_000, "less than half a float64 a token"


def test_grouped_errors_are_those_of_the_ratio(samples):
    rng = np.random.default_rng(0)
    values, keep = rng.normal(size=(40, 7)), rng.random((40, 7)) < 0.8
    group = rng.integers(0, 9, 40)
    means = GroupedMeans({"it": "a measure"})
    for part in np.array_split(np.arange(40), 6):
        means.add(torch.tensor(values[part])[None], torch.tensor(keep[part]), group[part])
    found = means.variables()
    of_value = np.repeat(group, 7).reshape(40, 7)[keep]
    assert float(found["it"].values) == pytest.approx(values[keep].mean(), rel=1e-12)
    expected = ratio_error(values[keep], np.ones(keep.sum()), of_value)
    assert float(found["it_standard_error"].values) == pytest.approx(expected, rel=1e-12)
    assert means.count == keep.sum()
    one = GroupedMeans({"it": "a measure"})
    one.add(torch.ones(1, 2, 3), torch.ones(2, 3, dtype=torch.bool), np.array([5, 5 + BUCKETS]))
    assert np.isnan(one.variables()["it_standard_error"].values), "one bucket tells no error"
