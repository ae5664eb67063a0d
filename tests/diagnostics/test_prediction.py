"""Sets of predictions are what their names say."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from workbench.diagnostics import chosen_states, explain_chosen, sample
from workbench.diagnostics.unigram_prior import unigram_prior
from workbench.evaluation import open_run
from workbench.folder import InputError
from workbench.result import check
from workbench.text import IGNORED


@pytest.fixture(scope="module")
def given(tiny_run):
    return sample(open_run(tiny_run.path))


def wrong(states):
    return states.predicted != states.target


def test_failed_predictions_of_a_class(given):
    everything = chosen_states(given)
    kinds = np.array(everything.profile)
    name = Counter(kinds[wrong(everything)].tolist()).most_common(1)[0][0]
    found = chosen_states(given, profile=name)
    assert wrong(found).all() and set(found.profile) == {name}
    kept = wrong(everything) & (kinds == name)
    np.testing.assert_array_equal(found.hidden, everything.hidden[kept])
    assert len(found.records) == len(found.contexts) == kept.sum()
    assert [each.id for each in found.records] == [
        each.id for each, is_kept in zip(everything.records, kept, strict=True) if is_kept
    ]


def test_a_confusion_is_every_place_where_one_was_due_and_the_other_predicted(given):
    table = given.table
    due, said = table.id.values, table.top1.values
    pairs = Counter(
        pair for pair in zip(due.tolist(), said.tolist(), strict=True) if len(set(pair)) > 1
    )
    (target, predicted), count = pairs.most_common(1)[0]
    found = chosen_states(given, confusion=("", ""))
    assert (found.target == target).all() and (found.predicted == predicted).all()
    assert len(found.records) == count
    pieces = given.tokenizer.pieces
    again = chosen_states(given, confusion=(pieces[target], pieces[predicted]))
    np.testing.assert_array_equal(found.hidden, again.hidden)
    only = chosen_states(given, confusion=("", pieces[predicted]))
    assert (only.predicted == predicted).all()


def test_offsets_hand_over_targets_of_the_validation_split(given):
    offsets = given.cut.offsets[given.cut.targets != IGNORED][[3, 40, 41]]
    found = chosen_states(given, offsets=offsets)
    np.testing.assert_array_equal(found.target, given.data.validation.ids[offsets])
    for offset, context in zip(offsets, found.contexts, strict=True):
        before = given.data.validation.ids[offset - len(context) : offset]
        np.testing.assert_array_equal(before, context)
    groups = explain_chosen(given, found).group.values
    expected = given.data.validation.group_of(offsets)
    assert groups.tolist() == [f"document {each}" for each in expected]


def test_a_typed_prompt_with_and_without_what_is_due(given):
    free = chosen_states(given, prompt="a bad")
    assert free.target == free.predicted and len(free.records) == 1
    ids = [given.tokenizer.bos, *given.tokenizer.encode("a bad").tolist()]
    assert free.contexts == (tuple(ids),)
    with torch.no_grad():
        own = given.model(torch.tensor([ids]))[0, -1]
    np.testing.assert_allclose(free.logits[0], own, atol=1e-4)
    due = chosen_states(given, prompt="a bad", target="face")
    assert given.tokenizer.token_bytes[due.target[0]] == b" "
    np.testing.assert_array_equal(due.hidden, free.hidden)


def test_empty_sets_and_unknown_tokens_are_refused(given):
    with pytest.raises(InputError, match="expected one or more"):
        chosen_states(given, offsets=[10**9])
    with pytest.raises(InputError, match="expected one or more"):
        chosen_states(given, profile="no such class")
    with pytest.raises(InputError, match="as the figures show it"):
        chosen_states(given, confusion=("not a token", ""))


def test_prior_and_frequency_by_loop(given):
    found = check(unigram_prior(given))
    counts = Counter(given.data.train.ids[1:].tolist())
    head = given.model.head_weight.detach().double().numpy()
    mu, _ = given.reference
    judged = [at for at in range(len(head)) if counts[at] >= 20]
    prior = {at: float(head[at] @ mu) for at in judged}
    level = np.mean(list(prior.values()))
    for at in judged:
        assert int(found["count"][at]) == counts[at]
        share = counts[at] / sum(counts.values())
        assert float(found.log_unigram[at]) == pytest.approx(np.log(share))
        assert float(found.prior[at]) == pytest.approx(prior[at] - level, abs=1e-9)
        assert float(found.norm[at]) == pytest.approx(np.linalg.norm(head[at]))
    line = np.polynomial.Polynomial.fit(
        found.log_unigram.values[judged], found.prior.values[judged], 1
    )
    expected = found.prior.values[judged] - line(found.log_unigram.values[judged])
    np.testing.assert_allclose(found.excess.values[judged], expected, atol=1e-9)
    assert found.attrs["judged"] == len(judged)
    assert np.isnan(found.excess.values[[at for at in counts if counts[at] < 20]]).all()
    unseen = [at for at in range(len(head)) if counts[at] == 0]
    assert np.isnan(found.log_unigram.values[unseen]).all()


def test_a_token_lifted_beyond_its_frequency_is_furthest_above_the_line(given):
    mu, about = given.reference
    before = unigram_prior(given)
    judged = np.flatnonzero(np.isfinite(before.excess.values))
    lifted = judged[2]
    rows = given.model.head_weight.detach().double().numpy()[judged]
    pushed = mu + np.linalg.pinv(rows) @ (9.0 * (judged == lifted))  # moves no other judged token
    planted = replace(given)
    planted.__dict__["reference"] = (pushed, about)
    after = unigram_prior(planted)
    assert int(np.nanargmax(after.excess.values)) == lifted
    assert int(np.nanargmax(before.excess.values)) != lifted
    assert float(after.excess[lifted]) > 5 > np.nanmax(before.excess.values)
