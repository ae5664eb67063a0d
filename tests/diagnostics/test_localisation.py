import math

import numpy as np
import pytest
import torch

from workbench.diagnostics.localisation import RIDGE, Probe, localised, mean_embedding, probe

LABELS = np.repeat([3, 8, 5], 10)


def blobs(distance, *, seed=0):
    rng = np.random.default_rng(seed)
    centres = distance / np.sqrt(2) * np.eye(3, 8)
    return np.repeat(centres, 10, axis=0) + rng.normal(size=(30, 8))


FACTS = np.tile(np.repeat(["a", "b", "c", "d", "e"], 2), 3) + np.repeat(["3", "8", "5"], 10)


def twins(*, shared, seed=0, n_target=4, n_fact=3, n_phrasing=3):
    """Give every fact its own direction; `shared` is how strongly its target shows in it too."""
    rng = np.random.default_rng(seed)
    target = np.repeat(np.arange(n_target), n_fact * n_phrasing)
    fact = np.repeat(np.arange(n_target * n_fact), n_phrasing)
    own = rng.normal(size=(n_target * n_fact, 40))[fact]
    features = own + shared * rng.normal(size=(n_target, 40))[target]
    return features + 0.1 * rng.normal(size=own.shape), target, fact.astype(str)


def by_loop(features, target, fact=None):
    """Leave every fact out in turn and solve the ridge regression with an intercept."""
    fact = np.arange(len(target)) if fact is None else fact
    groups = np.unique(target)
    centred = features - features.mean(axis=0)
    penalty = RIDGE * np.trace(centred @ centred.T) / len(features)
    answers = []
    for row in range(len(features)):
        keep = fact != fact[row]
        x = np.column_stack([np.ones(keep.sum()), features[keep]])
        y = (target[keep, None] == groups).astype(float)
        free = penalty * np.eye(x.shape[1])
        free[0, 0] = 0.0
        weight = np.linalg.solve(x.T @ x + free, x.T @ y)
        answers.append(groups[(np.append(1.0, features[row]) @ weight).argmax()])
    return np.array(answers)


@pytest.mark.parametrize("distance", [0.5, 2.0, 4.0])
def test_the_closed_form_is_leaving_each_record_out(distance):
    features = blobs(distance)
    assert probe(features, LABELS).right == (by_loop(features, LABELS) == LABELS).sum()


@pytest.mark.parametrize("shared", [0.0, 0.4, 2.0])
def test_the_block_form_is_fitting_again_without_each_fact(shared):
    features, target, fact = twins(shared=shared)
    mixed = np.random.default_rng(5).permutation(len(target))  # blocks need not lie together
    features, target, fact = features[mixed], target[mixed], fact[mixed]
    found = probe(features, target, fact=fact)
    assert found.right == (by_loop(features, target, fact) == target).sum()
    assert (found.asked, found.facts) == (36, 12)
    answers = by_loop(blobs(2.0), LABELS, FACTS)
    assert probe(blobs(2.0), LABELS, fact=FACTS).right == (answers == LABELS).sum()


def test_a_twin_phrasing_does_not_tell_the_answer():
    features, target, fact = twins(shared=0.0)
    leaked, honest = probe(features, target), probe(features, target, fact=fact)
    assert leaked.right == 36 and leaked.p_value == 0.01, "the subject's direction is learned"
    assert honest.verdict == "lost" and honest.p_value > 0.05
    healthy = probe(*twins(shared=2.0)[:2], fact=fact)
    assert healthy.verdict == "found" and healthy.right > 30 and healthy.p_value == 0.01


def test_targets_are_dealt_to_facts_not_to_records():
    p_values = []
    for seed in range(40):
        features, target, fact = twins(shared=0.0, seed=seed)
        p_values.append(probe(features, target, fact=fact, seed=seed).p_value)
    assert np.mean(np.array(p_values) <= 0.2) < 0.4, "near its level where there is nothing"
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.15)


def test_one_fact_a_target_cannot_be_judged():
    features, target, _ = twins(shared=2.0)
    assert probe(features, target, fact=target.astype(str)) == Probe()
    lone = np.where(target == 0, np.repeat(np.arange(12), 3), 100 + target).astype(str)
    assert probe(features, target, fact=lone) == Probe(), "one target has several facts: too few"
    _, _, fact = twins(shared=2.0)
    few = probe(features, target, fact=fact, asked=np.arange(36) < 12)
    assert (few.asked, few.facts, few.verdict) == (12, 4, "unjudged"), "twelve records, four facts"


def test_blobs_are_found_and_identical_vectors_are_not():
    apart = probe(blobs(10.0), LABELS)
    assert (apart.asked, apart.right, apart.p_value, apart.verdict) == (30, 30, 0.01, "found")
    for features in (np.ones((30, 8)), np.zeros((30, 8))):
        assert probe(features, LABELS).verdict == "lost"


def test_shuffled_targets_and_more_channels_than_records_are_lost():
    shuffled = np.random.default_rng(1).permutation(LABELS)
    assert probe(blobs(10.0), shuffled).verdict == "lost"
    noise = np.random.default_rng(2).normal(size=(30, 200))
    found = probe(noise, LABELS)
    assert found.verdict == "lost" and found.p_value > 0.05


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_neither_scale_nor_a_constant_matters(scale):
    plain = probe(blobs(3.0), LABELS)
    assert probe(scale * (blobs(3.0) + 7.0), LABELS) == plain


def test_only_what_was_asked_and_can_be_learned_counts():
    asked = np.arange(30) < 6
    assert probe(blobs(10.0), LABELS, asked=asked).asked == 6
    single = np.append(LABELS, 99)
    assert probe(np.vstack([blobs(10.0), np.ones(8)]), single).asked == 30
    for target in (np.arange(30), np.zeros(30, dtype=int)):
        found = probe(blobs(10.0), target)
        assert found.asked == 0 and math.isnan(found.p_value) and found.verdict == "unjudged"
    assert probe(blobs(10.0), LABELS, asked=np.arange(30) < 4).verdict == "unjudged", "too few"


FOUND, LOST, NOTHING = (
    Probe(asked=20, facts=10, right=18, p_value=0.01),
    Probe(asked=20, facts=10, right=3, p_value=0.4),
    Probe(),
)


@pytest.mark.parametrize(
    ("hidden", "given", "where"),
    [
        (FOUND, FOUND, "head"),
        (FOUND, NOTHING, "head"),
        (LOST, FOUND, "trunk"),
        (LOST, LOST, "unjudged"),
        (LOST, NOTHING, "unjudged"),
        (NOTHING, FOUND, "unjudged"),
    ],
)
def test_two_ways_to_lose_an_answer(hidden, given, where):
    assert localised(hidden, given) == where


def test_some_by_chance_is_not_most():
    assert Probe(asked=20, facts=10, right=9, p_value=0.01).verdict == "lost"
    assert Probe(asked=6, facts=6, right=4, p_value=0.2).verdict == "lost"


def test_mean_embedding_by_a_forward_pass(tiny_network):
    contexts = [(5, 9, 9, 2), (7,), (2, 5)]
    found = mean_embedding(tiny_network, contexts)
    table = tiny_network.tok_emb.weight
    for row, ids in zip(found, contexts, strict=True):
        each = torch.nn.functional.rms_norm(table[list(ids)], (table.shape[1],))
        np.testing.assert_allclose(row, each.mean(dim=0).detach().numpy(), rtol=1e-4, atol=1e-6)
    assert mean_embedding(tiny_network, []) is None
