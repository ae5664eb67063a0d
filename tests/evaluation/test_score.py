"""Scores: each target once, by another route; the standard error against a bootstrap."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.evaluation import bits_per_byte, ratio_error, score_batches, stride_of, token_table
from workbench.folder import InputError
from workbench.result import check, variable
from workbench.text import TOKEN_CLASSES, Tokens, closed_world, train_tokenizer
from workbench.text.world import world_documents, world_tokens

LENGTH = 16


def table_of(network, data, **options):
    return token_table(
        network, data.validation, data.tokenizer, **{"sequence_length": LENGTH, **options}
    )


def spans(n_target, stride):
    """List (first input, first scored, last scored + 1) of each row, one after the other."""
    if stride is None:
        return [(at, at, at + LENGTH) for at in range(0, n_target - LENGTH + 1, LENGTH)]
    found, done = [(0, 0, LENGTH)], LENGTH
    while done < n_target:
        end = min(done + stride, n_target)
        found.append((end - LENGTH, done, end))
        done = end
    return found


@pytest.mark.parametrize(
    ("protocol", "stride"),
    [("full", None), ("sliding:16", 16), ("sliding:5", 5), ("sliding:1", 1)],
)
def test_loss_against_one_row_at_a_time(tiny_network, tiny_data, protocol, stride):
    tokens = Tokens(ids=tiny_data.validation.ids[:150], starts=np.array([0]))
    parts = list(
        score_batches(tiny_network, tokens, sequence_length=LENGTH, protocol=protocol, batch=3)
    )
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    ids = torch.from_numpy(tokens.ids.astype(np.int64))
    nll, offsets, positions = [], [], []
    for first, start, stop in spans(len(ids) - 1, stride):
        with torch.no_grad():
            logits = tiny_network(ids[None, first : first + LENGTH])[0]
        each = F.cross_entropy(logits, ids[first + 1 : first + 1 + LENGTH], reduction="none")
        nll += each[start - first : stop - first].tolist()
        offsets += range(start + 1, stop + 1)
        positions += range(start - first, stop - first)
    np.testing.assert_allclose(found["nll"], nll, rtol=1e-4, atol=1e-5)
    assert found["offset"].tolist() == offsets and found["position"].tolist() == positions
    assert (found["id"] == tokens.ids[offsets]).all()
    assert (found["previous"] == tokens.ids[np.array(offsets) - 1]).all()
    if stride is not None:
        assert offsets == list(range(1, 150)), "sliding leaves nothing out"


class Uniform(torch.nn.Module):
    """Give every id the same logit; fast, where only the bookkeeping is judged."""

    def __init__(self):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def forward(self, ids):
        return self.anchor.expand(*ids.shape, 10)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n_token=st.integers(9, 70),
    stride=st.none() | st.integers(1, 8),
    batch=st.integers(1, 9),
    limit=st.none() | st.integers(1, 80),
)
def test_every_target_once_under_any_protocol(n_token, stride, batch, limit):
    tokens = Tokens(ids=np.arange(n_token, dtype=np.int32) % 10, starts=np.array([0]))
    protocol = "full" if stride is None else f"sliding:{stride}"
    parts = score_batches(
        Uniform(), tokens, sequence_length=8, protocol=protocol, batch=batch, limit=limit
    )
    offsets = np.concatenate([part["offset"] for part in parts]).tolist()
    whole = (n_token - 1) // 8 * 8 if stride is None else n_token - 1
    assert offsets == list(range(1, len(offsets) + 1))
    assert len(offsets) == whole if limit is None else len(offsets) <= max(8, min(limit, whole))


def test_measures_against_numpy(tiny_network, tiny_data):
    table = table_of(tiny_network, tiny_data, limit=64)
    ids = torch.from_numpy(tiny_data.validation.ids[:64].astype(np.int64)).reshape(4, LENGTH)
    with torch.no_grad():
        z = tiny_network(ids).reshape(64, -1).numpy().astype(np.float64)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    target = tiny_data.validation.ids[1:65]
    of_target = p[np.arange(64), target]
    np.testing.assert_allclose(table.nll, -np.log(of_target), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(table.entropy, (p * np.log(1 / p)).sum(1), rtol=1e-4, atol=1e-5)
    assert table["rank"].values.tolist() == (1 + (p > of_target[:, None]).sum(1)).tolist()
    assert table.top1.values.tolist() == p.argmax(1).tolist()
    np.testing.assert_allclose(table.top1_probability, p.max(1), rtol=1e-5)
    assert table.id.values.tolist() == target.tolist()
    assert ((table["rank"] == 1) == (table.top1 == table.id)).all()
    assert table.nll.dtype == table.entropy.dtype == np.float64


def test_results_do_not_depend_on_the_batch(tiny_network, tiny_data):
    one, many = (table_of(tiny_network, tiny_data, batch=batch) for batch in (1, 50))
    xr.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-5)


def test_bytes_are_those_of_the_text(tiny_network, tiny_data):
    table = table_of(tiny_network, tiny_data, protocol="sliding:7")
    raw = sum(len(text.encode()) for text in tiny_data.corpus.validation)
    assert int(table.bytes.sum()) == raw
    assert len(table.token) == raw + tiny_data.validation.n_document - 1
    total = bits_per_byte(table)
    assert (total.bytes, total.tokens) == (raw, len(table.token))
    assert total.bits_per_byte == pytest.approx(float(table.nll.sum()) / math.log(2) / raw)
    assert total.loss_nat == pytest.approx(float(table.nll.mean()))
    assert (total.protocol, total.context) == ("sliding:7", LENGTH)
    assert total.documents == tiny_data.validation.n_document


def test_the_table_says_where_each_token_stands(tiny_network, tiny_data):
    done = []
    table = table_of(tiny_network, tiny_data, protocol="sliding:9", watch=done.append)
    assert check(table) is table and done[-1] == len(table.token) and done == sorted(done)
    document = -1
    for row, token in enumerate(tiny_data.validation.ids.tolist()):
        if token == tiny_data.tokenizer.bos:
            document += 1
        if row:
            assert int(table.document[row - 1]) == document
            assert int(table.group[row - 1]) == document
            context = tiny_data.validation.ids[row - 1 - int(table.position[row - 1]) : row]
            assert bool(table.repeated[row - 1]) == (token in context.tolist())
    assert table.position.values[: LENGTH + 2].tolist() == [*range(LENGTH), 7, 8]
    names = [TOKEN_CLASSES[index] for index in table.token_class.values]
    decoded = {name: set() for name in names}
    for name, token in zip(names, table.id.values, strict=True):
        decoded[name].add(tiny_data.tokenizer.token_bytes[token])
    assert decoded["control"] == {b""} and decoded["punctuation"] == {b"."}
    assert decoded["newline"] == {b"\n"} and decoded["byte"] == {b"\xc3", b"\xa9"}
    assert table.attrs["split_tokens"] == len(tiny_data.validation.ids)


def test_only_answers_of_records_are_scored():
    world = closed_world(people=3, objects=3, colours=2, places=2)
    tokenizer = train_tokenizer(world_documents(world), vocab_size=300)
    records = world.profiles["colour_paraphrase"]
    tokens = world_tokens(records, tokenizer)
    model = Uniform()
    model.forward = lambda ids: torch.zeros(*ids.shape, tokenizer.vocab_size)
    table = token_table(model, tokens, tokenizer, sequence_length=60)
    assert len(table.token) == int(tokens.answers.sum()) and table.attrs["protocol"] == "answers"
    text = tokenizer.decode(table.id.values)
    assert text.replace(" ", "") == "".join(r.target + "." for r in records).replace(" ", "")
    assert len(np.unique(table.document)) == len(records)
    np.testing.assert_allclose(table.nll, math.log(tokenizer.vocab_size), rtol=1e-6)


# --- the standard error ----------------------------------------------------------------------


def hand_table(nll, size, document):
    return xr.Dataset(
        {
            "nll": variable("token", nll, "loss", "nat"),
            "bytes": variable("token", size, "bytes", "byte"),
            "document": variable("token", document, "document"),
            "group": variable("token", document, "group"),
        },
        attrs={"protocol": "full", "context": 8},
    )


def planted_documents(seed, n_document=60):
    """Draw documents of unlike lengths whose tokens share a difficulty."""
    rng = np.random.default_rng(seed)
    length = rng.integers(5, 60, n_document)
    document = np.repeat(np.arange(n_document), length)
    nll = rng.gamma(2.0, 0.6, len(document)) + rng.normal(1.0, 0.4, n_document)[document].clip(0)
    return nll, rng.integers(1, 5, len(document)), document


@pytest.mark.parametrize("seed", range(3))
def test_standard_error_against_a_bootstrap_over_documents(seed):
    nll, size, document = planted_documents(seed)
    total = bits_per_byte(hand_table(nll, size, document))
    per_document = np.array(
        [[nll[document == d].sum(), size[document == d].sum()] for d in range(60)]
    )
    drawn = np.random.default_rng(seed).integers(0, 60, (4000, 60))
    sums = per_document[drawn].sum(axis=1)
    bootstrap = float((sums[:, 0] / sums[:, 1] / math.log(2)).std(ddof=1))
    assert total.standard_error == pytest.approx(bootstrap, rel=0.1)
    alone = ratio_error(nll / math.log(2), size.astype(float), np.arange(len(nll)))
    assert total.standard_error > 1.2 * alone, "tokens of one document are not independent"


def test_standard_error_by_hand():
    """Equal sizes: the ratio is a mean, and its error that of a mean."""
    values = np.array([1.0, 2.0, 4.0, 5.0])
    found = ratio_error(values, np.ones(4), np.array([7, 3, 9, 1]))
    assert found == pytest.approx(values.std(ddof=1) / 2)


def test_one_document_has_no_standard_error():
    nll, size, document = planted_documents(0)
    total = bits_per_byte(hand_table(nll, size, np.zeros_like(document)))
    assert total.standard_error is None and total.documents == 1
    assert total.bits_per_byte == pytest.approx(nll.sum() / math.log(2) / size.sum())


@pytest.mark.parametrize("planted", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_never_averaged(planted):
    nll, size, document = planted_documents(0)
    nll[3] = planted
    with pytest.raises(ValueError, match="1 of .* that are not"):
        bits_per_byte(hand_table(nll, size, document))


def test_text_without_bytes_is_refused():
    with pytest.raises(ValueError, match="no byte"):
        bits_per_byte(hand_table(np.ones(3), np.zeros(3, int), np.zeros(3, int)))


# --- protocols -------------------------------------------------------------------------------


def test_protocols():
    assert stride_of("full", 8) is None
    assert [stride_of(f"sliding:{n}", 8) for n in (1, 8)] == [1, 8]


@pytest.mark.parametrize(
    "protocol",
    [
        "",
        "Full",
        "sliding",
        "sliding:",
        "sliding:0",
        "sliding:9",
        "sliding:-1",
        "sliding:4.0",
        "ttt",
    ],
)
def test_a_wrong_protocol_is_named(protocol):
    with pytest.raises(InputError, match="sliding:N with N from 1 to the context 8"):
        stride_of(protocol, 8)
