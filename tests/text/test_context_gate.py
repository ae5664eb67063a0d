import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from word_tokenizer import word_tokenizer

from workbench.text.context_gate import branches, context_gate, first_disagreement
from workbench.text.vocabulary import byte_tokenizer
from workbench.text.world import Record, closed_world, world_documents

WORLD = closed_world()
WORDS = word_tokenizer(world_documents(WORLD))


def records(*pairs: tuple[str, str]) -> list[Record]:
    return [
        Record(id=str(number), prompt=prompt, target=target, profile="p", source="t:p")
        for number, (prompt, target) in enumerate(pairs)
    ]


def gate_of(group, tokenizer, **options):
    return context_gate(branches(group, tokenizer, **options))


def test_branch_by_hand_with_bytes():
    tokenizer = byte_tokenizer()
    found = branches(records(("ab", " x"), ("cb", " y")), tokenizer, context_length=3)
    assert found.position == 1, "position 0 is the space of every target"
    # the begin id, then "ab", then the space of the target: the last three of these
    assert found.contexts == (tuple(b"ab "), tuple(b"cb "))
    assert found.targets.tolist() == [ord("x"), ord("y")]
    assert found.cut.tolist() == [1, 1] and found.skipped == 0


def test_a_branch_in_the_middle_of_targets():
    tokenizer = byte_tokenizer()
    found = branches(records(("a", " lamp"), ("b", " land")), tokenizer, context_length=50)
    assert found.position == 3
    assert found.contexts[0] == (256, *b"a la")
    assert found.targets.tolist() == [ord("m"), ord("n")]


def test_a_target_that_begins_another_still_branches():
    found = branches(records(("a", " car"), ("b", " cart")), byte_tokenizer(), context_length=9)
    assert found.position == 4 and found.targets.tolist() == [ord("."), ord("t")]


def test_records_that_end_before_the_branch_are_skipped():
    tokenizer = byte_tokenizer()
    pair = records(("a", " x"), ("b", " yes"))
    found = branches(pair, tokenizer, context_length=9, branch_position=3)
    assert found.skipped == 1 and found.records == (pair[1],) and found.kept.tolist() == [1]
    gate = gate_of(pair, tokenizer, context_length=9, branch_position=3)
    assert (gate.count, gate.skipped, gate.passed) == (1, 1, False)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=4))
def test_first_disagreement_by_loop(completions):
    expected = 0
    for position in range(5):
        heads = [tuple(each[: position + 1]) for each in completions]
        if any(head != heads[0] for head in heads):
            expected = position
            break
    assert first_disagreement(completions) == expected


@pytest.mark.parametrize("name", list(WORLD.profiles))
def test_every_profile_of_the_world_passes_with_whole_prompts(name):
    gate = gate_of(WORLD.profiles[name], WORDS, context_length=64)
    assert gate.passed and gate.covered_rate == 1.0 and gate.ambiguous_contexts == 0
    assert gate.unique_contexts == gate.count == len(WORLD.profiles[name])


def test_a_context_too_short_for_the_object_is_ambiguous():
    pairs = records(
        ("The cup belongs to", " Mia"),
        ("The pot belongs to", " Leo"),
        ("The pan belongs to", " Mia"),
    )
    tokenizer = word_tokenizer([each.prompt + each.target + "." for each in pairs])
    whole = gate_of(pairs, tokenizer, context_length=3)
    assert whole.passed and whole.missing == 0
    short = gate_of(pairs, tokenizer, context_length=2)
    assert not short.passed
    assert (short.count, short.missing, short.covered_rate) == (3, 3, 0.0)
    assert (short.unique_contexts, short.collision_contexts, short.ambiguous_contexts) == (1, 1, 1)
    assert (short.max_context_reuse, short.max_target_options) == (3, 2)


def test_shrinking_the_context_flips_the_gate_once():
    passed = [
        gate_of(WORLD.profiles["owner"], WORDS, context_length=length).passed
        for length in range(1, 20)
    ]
    flip = passed.index(True)
    assert 0 < flip and all(passed[flip:]) and not any(passed[:flip])


def test_cut_decisive_tokens_are_missing_though_other_words_still_differ():
    # Cut to two words the prompts differ by their phrasing alone, which is not what decides.
    pairs = records(
        ("The cup belongs to", " Mia"),
        ("The pot belongs to", " Leo"),
        ("The pan is owned by", " Ada"),
        ("The jug is owned by", " Tom"),
    )
    tokenizer = word_tokenizer([each.prompt + each.target + "." for each in pairs])
    gate = gate_of(pairs[1:3], tokenizer, context_length=2)
    assert gate.ambiguous_contexts == 0 and gate.missing == 2 and not gate.passed
    assert gate_of(pairs, tokenizer, context_length=3).covered == 2


def test_one_prompt_with_two_answers_is_ambiguous_at_any_length():
    pairs = records(("Who is it?", " Mia"), ("Who is it?", " Leo"))
    gate = gate_of(pairs, byte_tokenizer(), context_length=100)
    assert gate.ambiguous_contexts == 1 and gate.missing == 0 and not gate.passed


def test_a_collision_with_one_answer_is_no_fault():
    pairs = records(("Who is it?", " Mia"), ("Who is it?", " Mia"), ("Who was it?", " Leo"))
    gate = gate_of(pairs, byte_tokenizer(), context_length=100)
    assert gate.passed and gate.collision_contexts == 1 and gate.max_context_reuse == 2


def test_an_empty_profile_does_not_pass():
    gate = gate_of([], byte_tokenizer(), context_length=8)
    assert not gate.passed and gate.count == 0 and math.isnan(gate.covered_rate)


def test_one_target_has_nothing_to_decide():
    gate = gate_of(records(("a b", " x"), ("c d", " x")), byte_tokenizer(), context_length=1)
    assert gate.passed and gate.missing == 0


def test_missing_records_by_a_loop_over_pairs():
    for length in (3, 5, 7):
        found = branches(WORLD.profiles["owner"], WORDS, context_length=length)
        missing = 0
        for ids, record, cut in zip(found.prompts, found.records, found.cut, strict=True):
            options = []
            for other_ids, other in zip(found.prompts, found.records, strict=True):
                if other.target == record.target:
                    continue
                shorter = min(len(ids), len(other_ids))
                start = next((i for i in range(shorter) if ids[i] != other_ids[i]), shorter)
                end = 0
                while end < shorter - start and ids[-1 - end] == other_ids[-1 - end]:
                    end += 1
                options.append((max(len(ids), len(other_ids)) - start - end, start))
            missing += min(options)[1] < cut
        gate = gate_of(WORLD.profiles["owner"], WORDS, context_length=length)
        assert gate.missing == missing


@pytest.mark.parametrize(
    "wrong", [{"context_length": 0}, {"context_length": 4, "branch_position": -1}]
)
def test_impossible_lengths_are_refused(wrong):
    with pytest.raises(ValueError, match="need context_length"):
        branches(records(("a", " b")), byte_tokenizer(), **wrong)


def test_records_are_not_needed_to_be_of_one_length():
    found = branches(WORLD.profiles["place"], WORDS, context_length=64)
    assert len({len(ids) for ids in found.contexts}) > 1
    assert found.targets.dtype == np.int64
