"""Classes agree with a hand-made table; deciles with a slow count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.text.token_classes import (
    TOKEN_CLASSES,
    class_scheme,
    classify,
    frequency_deciles,
    token_class,
)
from workbench.text.tokenizer import byte_tokenizer, train_tokenizer

HAND_MADE = {
    b"": "control",
    b"\xe2": "byte",
    b" \xe2\x96": "byte",
    b"\n": "newline",
    b" \r\n ": "newline",
    b"    ": "whitespace",
    b"\t": "whitespace",
    "\u00a0".encode(): "whitespace",
    b"7": "digit",
    b" 1999": "digit",
    b"1st": "digit",
    "\u0663".encode(): "digit",
    "\u00bd".encode(): "digit",
    b".": "punctuation",
    b" (see": "punctuation",
    b"_name": "punctuation",
    "\u20ac".encode(): "punctuation",
    b"\x00": "punctuation",
    b" the": "word_start",
    b"\nthe": "word_start",
    " \u00e9t\u00e9".encode(): "word_start",
    b"ing": "continuation",
    b"x1": "continuation",
    "\u6c49".encode(): "continuation",
    "\u0301".encode(): "continuation",
}


@pytest.mark.parametrize(("raw", "name"), HAND_MADE.items())
def test_hand_made_table(raw, name):
    assert token_class(raw) == name


@given(st.binary(max_size=6))
def test_every_token_has_one_class(raw):
    assert token_class(raw) in TOKEN_CLASSES


def named(tokenizer, text):
    """Encode a document and name the class of each of its tokens."""
    ids = np.concatenate([[tokenizer.bos], tokenizer.encode(text)])
    classes = classify(class_scheme(tokenizer), ids[1:], ids[:-1])
    assert classes.dtype == np.int8
    return [TOKEN_CLASSES[each] for each in classes]


def test_the_token_before_makes_a_word_start():
    start, inside = "word_start", "continuation"
    assert named(byte_tokenizer(), "ab cd\ne(f9g") == [
        start,
        inside,
        "whitespace",
        start,
        inside,
        "newline",
        start,
        "punctuation",
        inside,
        "digit",
        inside,
    ]


def test_bytes_of_one_character_are_bytes():
    assert named(byte_tokenizer(), "a\u00e9") == ["word_start", "byte", "byte"]


def test_control_ids_and_spaced_pieces():
    tokenizer = train_tokenizer(["the the the the cat"], vocab_size=268)
    scheme = class_scheme(tokenizer)
    assert scheme.base[tokenizer.bos] == TOKEN_CLASSES.index("control")
    assert scheme.opens[tokenizer.bos]
    assert named(tokenizer, "the the")[-1] == "word_start"


def test_hash_follows_the_table():
    other = train_tokenizer(["ab ab"], vocab_size=263)
    assert class_scheme(byte_tokenizer()).hash == class_scheme(byte_tokenizer()).hash
    assert class_scheme(byte_tokenizer()).hash != class_scheme(other).hash


def slow_deciles(counts):
    """Lay ten crumbs a token in a row from rare to frequent, and cut the row in ten."""
    ranked = sorted(range(len(counts)), key=lambda each: (counts[each], each))
    laid_out = [each for each in ranked for _ in range(10 * counts[each])]
    decile = [0] * len(counts)
    for place, each in enumerate(laid_out):
        decile[each] = place * 10 // len(laid_out)
    return decile


@given(st.lists(st.integers(0, 30), max_size=25))
def test_deciles_agree_with_the_slow_count(counts):
    deciles = frequency_deciles(counts)
    assert deciles.dtype == np.int8
    assert deciles.tolist() == slow_deciles(counts)


def test_deciles_hold_equal_mass():
    counts = np.random.default_rng(0).integers(1, 50, size=2000)
    mass = np.bincount(frequency_deciles(counts), weights=counts, minlength=10)
    np.testing.assert_allclose(mass / counts.sum(), 0.1, atol=0.002)


def test_never_seen_ids_are_the_rarest():
    assert frequency_deciles([0, 5, 0]).tolist() == [0, 9, 0]
    assert frequency_deciles([0, 0]).tolist() == [0, 0]
