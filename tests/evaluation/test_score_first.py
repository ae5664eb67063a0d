"""Test-time training against plain loops, and its certificate against planted leaks."""

import json
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from workbench.evaluation import (
    Event,
    Ledger,
    certify,
    evaluate,
    open_run,
    score_events,
    stride_of,
    token_table,
)
from workbench.evaluation.score_first import FORMS, adaptation_of, scored
from workbench.folder import InputError
from workbench.model import state
from workbench.text import Tokens, windows

LENGTH = 16
TEXT = "ttt:chunk=64,rows=2,lr=0.3,epochs=2"
DOCUMENTS = "ttt:lora:chunk=8,rank=2,rows=3,lr=0.05"


@pytest.fixture
def tokens(tiny_data):
    """Ten rows and a remainder, in five documents; one is a single token."""
    return Tokens(ids=tiny_data.validation.ids[:170], starts=np.array([0, 40, 41, 90, 124]))


def events_of(model, tokens, protocol, **options):
    return list(score_events(model, tokens, sequence_length=LENGTH, protocol=protocol, **options))


def losses(events, tokens):
    """Loss by offset; NaN where none was scored."""
    found = np.full(len(tokens.ids), np.nan)
    for event in events:
        if event.log_p is not None:
            targets = torch.from_numpy(tokens.ids[event.offsets]).long()
            found[event.offsets] = -event.log_p[torch.arange(len(targets)), targets].numpy()
    return found


# --- against other routes ---------------------------------------------------------------------


@pytest.mark.parametrize("stride", [16, 4])
def test_text_against_a_loop_with_momentum_by_hand(tiny_network, tokens, stride):
    found = losses(events_of(tiny_network, tokens, f"{TEXT},stride={stride}"), tokens)
    ids, last = torch.from_numpy(tokens.ids).long(), len(tokens.ids) - 1
    weights = {name: p.detach().clone() for name, p in tiny_network.named_parameters()}
    speed = {name: torch.zeros_like(p) for name, p in weights.items()}
    expected = np.full(len(ids), np.nan)
    # The ends of the rows, two of them a pass; a chunk is 64 tokens of passes.
    ends = [*range(LENGTH, last, stride), last]
    passes = [ends[at : at + 2] for at in range(0, len(ends), 2)]
    n_pass, learned = 64 // (2 * stride), 0
    for number, some in enumerate(passes, 1):
        for end in some:
            with torch.no_grad():
                z = functional_call(tiny_network, weights, ids[None, end - LENGTH : end])[0]
            each = F.cross_entropy(z, ids[end - LENGTH + 1 : end + 1], reduction="none")
            new = np.isnan(expected[end - LENGTH + 1 : end + 1])
            expected[end - LENGTH + 1 : end + 1][new] = each.numpy()[new]
        if number % n_pass or some[-1] == last:
            continue
        lr = 0.3 * (1 + np.cos(np.pi * some[-1] / last)) / 2
        rows = range(some[-1], max(learned, LENGTH - 1), -LENGTH)[::-1]
        for at in [*range(0, len(rows), 2)] * 2:
            inputs = torch.stack([ids[end - LENGTH : end] for end in rows[at : at + 2]])
            targets = torch.stack([ids[end - LENGTH + 1 : end + 1] for end in rows[at : at + 2]])
            trained = {name: p.requires_grad_() for name, p in weights.items()}
            loss = F.cross_entropy(functional_call(tiny_network, trained, inputs).mT, targets)
            gradients = torch.autograd.grad(loss, list(trained.values()))
            norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
            for name, g in zip(weights, gradients, strict=True):
                speed[name] = 0.9 * speed[name] + g * min(1.0, 1.0 / float(norm))
                weights[name] = (weights[name] - lr * speed[name]).detach()
        learned = some[-1]
    np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-3, atol=1e-3)
    plain = losses(events_of(tiny_network, tokens, f"sliding:{stride}"), tokens)
    assert np.abs(found - plain)[65:].max() > 0.05, "it did learn"


def test_documents_against_merged_weights_one_document_at_a_time(tiny_network, tokens):
    """The corrections are added to the weights themselves, by parts of a document alone."""
    found = losses(events_of(tiny_network, tokens, DOCUMENTS), tokens)
    layers = {n: m for n, m in tiny_network.named_modules() if isinstance(m, torch.nn.Linear)}
    expected = np.full(len(tokens.ids), np.nan)
    ends = [*tokens.starts[1:], len(tokens.ids) - 1]
    for start, end in zip(tokens.starts, ends, strict=True):
        generator = torch.Generator().manual_seed(0)
        down = {
            n: (torch.randn(2, m.in_features, generator=generator) / m.in_features**0.5)
            for n, m in layers.items()
        }
        up = {n: torch.zeros(m.out_features, 2) for n, m in layers.items()}
        learned = [each.requires_grad_() for each in (*down.values(), *up.values())]
        optimizer = torch.optim.Adam(learned, lr=0.05)
        for first in range(int(start), int(end), 8):
            stop = min(first + 8, int(end))
            begin = max(int(start), stop - LENGTH)
            span = torch.from_numpy(tokens.ids[begin : stop + 1]).long()
            merged = {f"{n}.weight": m.weight + up[n] @ down[n] for n, m in layers.items()}
            z = functional_call(tiny_network, merged, span[None, :-1])[0]
            each = F.cross_entropy(z, span[1:], reduction="none")[first - begin :]
            expected[first + 1 : stop + 1] = each.detach().numpy()
            optimizer.zero_grad()
            each.sum().backward()
            optimizer.step()
    np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("protocol", "twin"), [(TEXT, "sliding:16"), (DOCUMENTS, None)])
def test_weights_that_do_not_move_score_as_the_model_does(tiny_network, tokens, protocol, twin):
    """One forward pass for both: nothing that plain scoring has is missing in this path."""
    still = ",".join(p for p in protocol.split(",") if not p.startswith("lr")) + ",lr=1e-30"
    found = losses(events_of(tiny_network, tokens, still), tokens)
    if twin is not None:
        expected = losses(events_of(tiny_network, tokens, twin), tokens)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        return
    first = slice(1, 9)  # the first chunk of the first document stands at the beginning of a row
    plain = losses(events_of(tiny_network, tokens, "full"), tokens)
    np.testing.assert_allclose(found[first], plain[first], rtol=1e-5)


# --- rules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [TEXT, f"{TEXT},stride=5", DOCUMENTS, "ttt", "ttt:lora"])
@pytest.mark.parametrize("limit", [None, 40])
def test_the_run_keeps_its_weights_and_every_target_is_scored_once(
    tiny_network, tokens, protocol, limit
):
    before = {name: t.clone() for name, t in state(tiny_network).items()}
    events = events_of(tiny_network, tokens, protocol, limit=limit)
    for name, tensor in state(tiny_network).items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None and p.requires_grad for p in tiny_network.parameters())
    assert not any(module._forward_hooks for module in tiny_network.modules())
    offsets = np.concatenate([event.offsets for event in events if event.log_p is not None])
    assert sorted(offsets) == list(range(1, 1 + (limit or len(tokens.ids) - 1)))


def test_the_last_chunk_is_not_learned_from(tiny_network, tokens):
    events = events_of(tiny_network, tokens, TEXT)
    learned = np.concatenate([event.offsets for event in events if event.log_p is None])
    assert learned.max() == 128 and events[-1].offsets.max() == 169
    events = events_of(tiny_network, tokens, DOCUMENTS)
    learned = np.concatenate([event.offsets for event in events if event.log_p is None])
    assert 40 not in learned and 90 not in learned, "the ends of the longest of each batch"
    passes = [event.log_p is None for event in events_of(tiny_network, tokens, TEXT)]
    assert passes == [False, False, True] * 2 + [False, False], "six rows of two, then learning"


def test_documents_do_not_depend_on_each_other(tiny_network, tokens):
    whole = losses(events_of(tiny_network, tokens, DOCUMENTS), tokens)
    alone = DOCUMENTS.replace("rows=3", "rows=1")
    np.testing.assert_allclose(
        losses(events_of(tiny_network, tokens, alone), tokens), whole, rtol=1e-3, atol=1e-4
    )
    ids, fourth = tokens.ids.copy(), slice(int(tokens.starts[3]) + 1, int(tokens.starts[4]))
    ids[fourth] = ids[fourth][::-1]
    changed = replace(tokens, ids=ids)
    other = losses(events_of(tiny_network, changed, DOCUMENTS), changed)
    moved = np.flatnonzero(np.abs(other - whole) > 1e-4)
    assert moved.min() >= fourth.start and moved.max() <= fourth.stop


def test_a_text_that_repeats_itself_is_learned(tiny_network):
    ids = np.tile(np.random.default_rng(0).integers(0, 257, 40), 12).astype(np.int32)
    tokens = Tokens(ids=ids, starts=np.array([0]))
    half = slice(240, None)
    plain = losses(events_of(tiny_network, tokens, "full"), tokens)[half]
    for protocol in (TEXT, DOCUMENTS):
        assert np.nanmean(losses(events_of(tiny_network, tokens, protocol), tokens)[half]) < (
            0.7 * np.nanmean(plain)
        )


def test_settings_are_read():
    assert adaptation_of("ttt") == FORMS["ttt"] and adaptation_of("ttt:lora") == FORMS["ttt:lora"]
    assert adaptation_of("full") is adaptation_of("sliding:64") is None
    found = adaptation_of("ttt:lora:rank=4,lr=1e-2")
    assert (found.rank, found.lr, found.chunk) == (4, 0.01, FORMS["ttt:lora"].chunk)


@pytest.mark.parametrize(
    "protocol",
    [
        *("ttt:", "ttt:rank=4", "ttt:lora:stride=4", "ttt:lr=0", "ttt:lr=nan", "ttt:lr=inf"),
        *("ttt:chunk=2.5", "ttt:chunk", "ttt:lora:lora", "tttt", "ttt:lr=1,,", "ttt:lr=0.1=2"),
    ],
)
def test_a_wrong_setting_is_refused(protocol, tiny_network, tokens):
    with pytest.raises(InputError, match="ttt:lora:rank=4"):
        events_of(tiny_network, tokens, protocol)
    with pytest.raises(InputError):
        stride_of(protocol, LENGTH)


# --- the table ---------------------------------------------------------------------------------


def tail_twice(*args, **options):
    """Cut windows as they should be, then score the last targets once more."""
    cut = list(windows(*args, **options))
    yield from cut
    yield cut[-1]


def gap(*args, **options):
    """Leave a row out."""
    cut = windows(*args, **options)
    next(cut)
    yield from cut


@pytest.mark.parametrize("planted", [tail_twice, gap])
def test_a_table_refuses_targets_scored_twice_or_left_out(
    tiny_network, tiny_data, monkeypatch, planted
):
    table = partial(token_table, tiny_network, tiny_data.validation, tiny_data.tokenizer)
    cut = {"sequence_length": LENGTH, "protocol": "sliding:8"}
    assert len(table(**cut).token) == len(tiny_data.validation.ids) - 1
    # The package has a function of the module's name, which hides the module.
    monkeypatch.setattr(sys.modules["workbench.evaluation.score"], "windows", planted)
    with pytest.raises(ValueError, match="each target is scored once"):
        table(**cut)


def test_a_table_is_in_the_order_of_the_text(tiny_network, tiny_data):
    table = token_table(
        tiny_network,
        tiny_data.validation,
        tiny_data.tokenizer,
        sequence_length=LENGTH,
        protocol=DOCUMENTS,
    )
    assert (table.id.values == tiny_data.validation.ids[1:]).all()
    assert table.attrs["protocol"] == DOCUMENTS


# --- the certificate ---------------------------------------------------------------------------


class Peeking(torch.nn.Module):
    """Raise the logit of the very next token, where the row shows it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        peeked = F.pad(F.one_hot(ids[:, 1:], 257), (0, 0, 0, 1))
        return self.model(ids) + 0.1 * peeked


def learns_first(tokens, *, model, is_told):
    """Learn from each row before it is scored."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = {name: t.clone() for name, t in state(model).items()}
    for window in windows(tokens, sequence_length=LENGTH, batch=2):
        optimizer.zero_grad()
        targets = torch.from_numpy(window.targets)
        F.cross_entropy(model(torch.from_numpy(window.inputs)).mT, targets).backward()
        optimizer.step()
        event = scored(model, window)
        if is_told:
            yield Event(offsets=event.offsets)
        yield event
    model.load_state_dict(first)


def rescaled(tokens, *, model):
    for event in score_events(model, tokens, sequence_length=LENGTH):
        yield replace(event, log_p=event.log_p + 0.05)


def twice(tokens, *, model):
    events = events_of(model, tokens, "sliding:8")
    yield from [*events, events[-1]]


def refused(scorer, tokens):
    """Name the parts of the certificate that do not pass."""
    ledger = Ledger(tokens)
    for event in scorer(tokens):
        ledger.note(event)
    found = certify(ledger, scorer, n_probed=8 * LENGTH)
    assert list(found) == ["causal", "scored_before_updated", "one_pass", "normalised"]
    assert all(set(p) == {"value", "limit", "passed", "measured_on"} for p in found.values())
    json.dumps(found, allow_nan=False)
    return {name for name, part in found.items() if not part["passed"]}


@pytest.mark.parametrize("protocol", ["full", "sliding:8", TEXT, f"{TEXT},stride=4", DOCUMENTS])
def test_healthy_protocols_pass(tiny_network, tokens, protocol):
    scorer = partial(score_events, tiny_network, sequence_length=LENGTH, protocol=protocol)
    assert refused(scorer, tokens) == set()


@pytest.mark.parametrize("protocol", ["full", TEXT, DOCUMENTS])
def test_a_model_that_peeks_is_not_causal(tiny_network, tokens, protocol):
    model = Peeking(tiny_network)
    scorer = partial(score_events, model, sequence_length=LENGTH, protocol=protocol)
    assert refused(scorer, tokens) == {"causal"}


def test_learning_before_scoring_is_refused_by_ledger_and_probe(tiny_network, tokens):
    told = partial(learns_first, model=tiny_network, is_told=True)
    assert refused(told, tokens) == {"scored_before_updated", "causal"}
    untold = partial(learns_first, model=tiny_network, is_told=False)
    assert refused(untold, tokens) == {"causal"}, "the probe needs no word of the scorer"


def test_probabilities_that_do_not_sum_to_one_are_refused(tiny_network, tokens):
    assert refused(partial(rescaled, model=tiny_network), tokens) == {"normalised"}


def test_a_tail_scored_twice_is_refused(tiny_network, tokens):
    assert refused(partial(twice, model=tiny_network), tokens) == {"one_pass"}


def test_a_document_that_learned_does_not_spoil_another(tiny_network, tokens):
    """Later documents may be scored before earlier ones: each has weights of its own."""
    ledger = Ledger(tokens)
    for event in events_of(tiny_network, tokens, DOCUMENTS):
        shared = replace(event, copies=0)
        ledger.note(shared)
    assert ledger.late > 0, "with shared weights it would be a leak"


@pytest.mark.parametrize("protocol", ["full", "ttt:chunk=64,rows=2", "ttt:lora:chunk=8"])
def test_an_evaluation_carries_its_certificate(tiny_run, protocol):
    opened = open_run(tiny_run.path)
    before = {name: t.clone() for name, t in state(opened.model).items()}
    summary, table = evaluate(opened, protocol=protocol)
    assert summary["protocol"] == table.attrs["protocol"] == protocol
    assert all(part["passed"] is True for part in summary["certificate"].values())
    json.dumps(summary, allow_nan=False)
    assert all(torch.equal(t, before[name]) for name, t in state(opened.model).items())


def test_records_are_certified_too(tiny_world_run):
    summary, _ = evaluate(open_run(tiny_world_run.path))
    assert all(part["passed"] for part in summary["certificate"].values())
    with pytest.raises(InputError, match="do not slide"):
        evaluate(open_run(tiny_world_run.path), protocol="ttt")


@pytest.mark.gpu
@pytest.mark.parametrize("protocol", [TEXT, DOCUMENTS])
def test_a_gpu_scores_as_the_processor_does(tiny_network, tokens, protocol):
    expected = losses(events_of(tiny_network, tokens, protocol), tokens)
    events = events_of(tiny_network.to("cuda"), tokens, protocol)
    moved = [replace(e, log_p=None if e.log_p is None else e.log_p.cpu()) for e in events]
    np.testing.assert_allclose(losses(moved, tokens), expected, rtol=1e-2, atol=1e-2)
