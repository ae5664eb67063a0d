import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from word_tokenizer import word_tokenizer

from workbench.text.tokens import IGNORED, rows
from workbench.text.vocabulary import byte_tokenizer
from workbench.text.world import (
    SEEN,
    TEMPLATES,
    TERMINATOR,
    Record,
    closed_world,
    world_documents,
    world_tokens,
)

WORLD = closed_world()


def words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]+", text))


def test_every_relation_has_at_least_five_trained_phrasings_and_two_held_out():
    for relation, templates in TEMPLATES.items():
        assert len(set(templates)) == len(templates), relation
        assert SEEN >= 5 and len(templates) - SEEN >= 2
        assert all(template.count("{}") == 1 for template in templates)


def test_a_prompt_has_one_answer_wherever_it_occurs():
    records = [*WORLD.train, *(each for group in WORLD.profiles.values() for each in group)]
    answers: dict[str, set[str]] = {}
    for each in records:
        answers.setdefault(each.prompt, set()).add(each.target)
    assert {len(targets) for targets in answers.values()} == {1}


def test_every_answer_is_a_fact_of_the_world():
    for each in (*WORLD.train, *(r for group in WORLD.profiles.values() for r in group)):
        relation = each.source.split(":")[1]
        told = [
            (subject, answer)
            for subject, answer in WORLD.facts[relation].items()
            if subject in words(each.prompt)
        ]
        assert [f" {answer}" for _, answer in told] == [each.target]


def test_possession_is_ownership_the_other_way_round():
    owner, possession = WORLD.facts["owner"], WORLD.facts["possession"]
    assert {person: thing for thing, person in owner.items()} == possession
    assert len(set(owner.values())) == len(owner) == 12


def test_colours_and_places_are_dealt_evenly():
    for relation, share in (("colour", 2), ("place", 2), ("whereabouts", 2)):
        assert set(Counter(WORLD.facts[relation].values()).values()) == {share}


def test_held_out_prompts_never_occur_in_training():
    trained = {each.prompt for each in WORLD.train}
    assert len(WORLD.held_out) == 2 * len(TEMPLATES)
    for name, group in WORLD.profiles.items():
        asked = {each.prompt for each in group}
        assert asked.isdisjoint(trained) if name in WORLD.held_out else asked <= trained


def test_held_out_prompts_use_only_words_that_training_shows():
    known = set().union(*(words(each.prompt + each.target) for each in WORLD.train))
    for name in WORLD.held_out:
        for each in WORLD.profiles[name]:
            assert words(each.prompt + each.target) <= known, each.prompt


def test_withheld_phrasings_are_trained_for_other_facts_and_the_fact_in_others():
    def template(record: Record, subject: str) -> str:
        return record.prompt.replace(subject, "{}")

    for relation, facts in WORLD.facts.items():
        for subject in facts:
            trained = {template(r, subject) for r in WORLD.profiles[relation] if r.prompt}
            assert len(trained & set(TEMPLATES[relation])) == 4
            withheld = {
                template(r, subject)
                for r in WORLD.profiles[f"{relation}_withheld"]
                if subject in words(r.prompt)
            }
            assert len(withheld) == 2 and withheld <= set(TEMPLATES[relation][:SEEN])


def test_every_profile_has_several_targets_and_several_records_of_each():
    for name, group in WORLD.profiles.items():
        counts = Counter(each.target for each in group)
        assert len(counts) >= 2 and min(counts.values()) >= 2, name
        assert {each.profile for each in group} == {name}
        assert len({each.id for each in group}) == len(group)


def test_seed_decides_the_facts_and_the_hash():
    assert closed_world(0).hash == WORLD.hash == closed_world(0).hash
    other = closed_world(1)
    assert other.hash != WORLD.hash and other.facts != WORLD.facts
    assert [r.prompt for r in other.profiles["colour"]] == [
        r.prompt for r in WORLD.profiles["colour"]
    ]
    first = WORLD.train[0]
    changed = replace(WORLD, train=(replace(first, target=" nobody"), *WORLD.train[1:]))
    assert changed.hash != WORLD.hash


@given(
    people=st.integers(2, 24),
    objects=st.integers(2, 24),
    colours=st.integers(2, 12),
    places=st.integers(2, 12),
    seed=st.integers(0, 100),
)
def test_every_size_gives_a_world_or_a_reason(people, objects, colours, places, seed):
    sizes = {"people": people, "objects": objects, "colours": colours, "places": places}
    if objects > people:
        with pytest.raises(ValueError, match="must not outnumber"):
            closed_world(seed, **sizes)
        return
    world = closed_world(seed, **sizes)
    trained = {each.prompt for each in world.train}
    for name, group in world.profiles.items():
        assert len({each.target for each in group}) >= 2, name
        if name in world.held_out:
            assert trained.isdisjoint(each.prompt for each in group)


@pytest.mark.parametrize("name", ["people", "objects", "colours", "places"])
def test_sizes_outside_the_words_are_refused(name):
    for wrong in (1, 25):
        with pytest.raises(ValueError, match=f"{name} must be from 2 to"):
            closed_world(**{name: wrong})


def test_documents_are_every_text_once():
    documents = world_documents(WORLD)
    assert len(documents) == len(set(documents)) == 480
    assert WORLD.train[0].prompt + WORLD.train[0].target + TERMINATOR in documents


@pytest.mark.parametrize("make", ["words", "bytes"])
def test_tokens_mark_exactly_target_and_terminator(make):
    tokenizer = word_tokenizer(world_documents(WORLD)) if make == "words" else byte_tokenizer()
    records = WORLD.train[:40]
    tokens = world_tokens(records, tokenizer)
    assert tokens.n_document == len(records) and tokens.answers is not None
    for number, each in enumerate(records):
        span = tokens.document(number)
        ids, answers = tokens.ids[span], tokens.answers[span]
        assert ids[0] == tokenizer.bos and not answers[0]
        assert tokenizer.decode(ids[1:]) == each.prompt + each.target + TERMINATOR
        assert tokenizer.decode(ids[answers]) == each.target + TERMINATOR
        assert np.flatnonzero(answers)[0] == len(ids) - answers.sum()


def test_training_rows_score_only_the_answer():
    tokenizer = word_tokenizer(world_documents(WORLD))
    _, targets = rows(world_tokens(WORLD.train, tokenizer), 24)
    assert set((targets != IGNORED).sum(axis=1)) == {2}


def test_a_space_that_the_encoder_adds_itself_is_not_doubled():
    documents = world_documents(WORLD)
    plain = word_tokenizer([*documents, *(f" {each}" for each in documents)])
    adder = replace(plain, drops_leading_space=True, encoder=lambda text: plain.encoder(f" {text}"))
    expected = [plain.encoder(f"{each.target}{TERMINATOR}") for each in WORLD.train]
    tokens = world_tokens(WORLD.train, adder)
    assert tokens.answers is not None
    for number, ids in enumerate(expected):
        span = tokens.document(number)
        assert tokens.ids[span][tokens.answers[span]].tolist() == ids


def test_phrasings_of_one_fact_are_one_group():
    world, tokenizer = WORLD, word_tokenizer(world_documents(WORLD))
    records = [each for group in world.profiles.values() for each in group]
    groups = world_tokens(records, tokenizer).groups
    assert len(set(groups.tolist())) == 12 + 12 + 12 + 12, "owner and possession share theirs"
    by_fact = {}
    for record, group in zip(records, groups.tolist(), strict=True):
        assert by_fact.setdefault(record.fact, group) == group
    assert len(by_fact) == 48
