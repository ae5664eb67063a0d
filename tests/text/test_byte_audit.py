"""Each known byte fault, planted, is caught by its name; the healthy twin is silent."""

import io

import numpy as np
import pytest
import sentencepiece

from workbench.folder import InputError
from workbench.text.byte_audit import audit_bytes
from workbench.text.sentencepiece_model import sentencepiece_tokenizer
from workbench.text.tokenizer import byte_tokenizer, train_tokenizer

TEXT = "the cat sat on the mat \u00e9\u00e8 and the dog sat on the log, n\u00e9e \U0001f600 too"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(
        ["the cat sat on the mat and the dog sat on the log, too"] * 3, vocab_size=300
    )


@pytest.fixture(scope="module")
def ids(tokenizer):
    return np.concatenate([[tokenizer.bos], tokenizer.encode(TEXT)])


def codes(tokenizer, ids, **claims):
    return [failure.code for failure in audit_bytes(tokenizer, ids, **claims)]


TRUTH = len(TEXT.encode())


def test_healthy_split_is_silent(tokenizer, ids):
    n_target = len(ids) - 1
    assert codes(tokenizer, ids) == []
    assert codes(tokenizer, ids, claimed_bytes=TRUTH, raw_text=TEXT) == []
    assert codes(tokenizer, ids, scored_targets=n_target, expected_targets=n_target) == []
    assert codes(tokenizer, ids, scored_targets=np.arange(1, len(ids))) == []


def test_double_counted_space(tokenizer, ids):
    claim = 0
    for each in ids[1:]:  # the fault as people wrote it: once in the table, once in the sum
        claim += len(tokenizer.token_bytes[each])
        claim += tokenizer.token_bytes[each].startswith(b" ")
    (failure,) = audit_bytes(tokenizer, ids, claimed_bytes=claim)
    assert failure.code == "double_counted_space"
    assert (failure.expected, failure.found) == (TRUTH, claim)


@pytest.mark.parametrize("spelling", ["decoded", "all"])
def test_byte_token_as_three(tokenizer, ids, spelling):
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    claim = 0
    for each in ids[1:].tolist():
        is_byte = processor.is_byte(each)
        shown = processor.decode([each]) if is_byte and spelling == "decoded" else "\ufffd"
        claim += len(shown.encode()) if is_byte else len(tokenizer.token_bytes[each])
    assert codes(tokenizer, ids, claimed_bytes=claim) == ["byte_token_as_three"]


def test_no_space_piece(tokenizer, ids):
    lone = tokenizer.model.replace("\n\x03\u2581".encode(), "\n\x03\u2582".encode())
    assert lone != tokenizer.model
    broken = sentencepiece_tokenizer(lone, where="test")
    stream = [broken.bos, *broken.encode("the mat  the")]
    (failure,) = audit_bytes(broken, stream)
    assert failure.code == "no_space_piece"
    assert "1 occur" in failure.message
    assert codes(tokenizer, ids) == []
    assert codes(byte_tokenizer(), [256, 32]) == []


def test_transformed_text(tokenizer, ids):
    raw = TEXT.replace("the", "\\The")
    assert codes(tokenizer, ids, raw_text=raw) == ["transformed_text"]
    assert codes(tokenizer, ids, raw_text=raw, claimed_bytes=TRUTH) == ["transformed_text"]
    # Divided by the bytes of the original text, as one should: healthy.
    assert codes(tokenizer, ids, raw_text=raw, claimed_bytes=len(raw.encode())) == []


def test_normalised_text_is_transformed_text():
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat"] * 3),
        model_writer=file,
        vocab_size=275,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    lossy = sentencepiece_tokenizer(file.getvalue(), where="test")
    squeezed = [lossy.bos, *lossy.encode("the   cat")]
    assert codes(lossy, squeezed, raw_text="the   cat") == ["transformed_text"]
    assert codes(lossy, squeezed, raw_text="the cat", claimed_bytes=7) == []


def test_targets_scored_twice(tokenizer, ids):
    n_target = len(ids) - 1
    tail_again = np.concatenate([np.arange(1, len(ids)), [n_target - 1, n_target]])
    assert codes(tokenizer, ids, scored_targets=n_target + 2) == ["targets_scored_twice"]
    assert codes(tokenizer, ids, scored_targets=tail_again) == ["targets_scored_twice"]
    assert codes(tokenizer, ids, scored_targets=n_target + 2, expected_targets=n_target - 1) == [
        "targets_scored_twice"
    ]


def test_duplicates_that_a_count_hides(tokenizer, ids):
    n_target = len(ids) - 1
    hidden = np.concatenate([np.arange(1, n_target), [1]])  # one again, one never
    found = codes(tokenizer, ids, scored_targets=hidden, expected_targets=n_target)
    assert found == ["targets_scored_twice", "wrong_validation_length"]


def test_wrong_validation_length(tokenizer, ids):
    n_target = len(ids) - 1
    wrong = ["wrong_validation_length"]
    assert codes(tokenizer, ids, expected_targets=n_target + 1) == wrong
    assert codes(tokenizer, ids, scored_targets=5, expected_targets=n_target) == wrong
    assert codes(tokenizer, ids, scored_targets=5, expected_targets=5) == []


def test_no_document_boundary(tokenizer, ids):
    assert codes(tokenizer, ids[1:]) == ["no_document_boundary"]


def test_unexplained_claim(tokenizer, ids):
    (failure,) = audit_bytes(tokenizer, ids, claimed_bytes=TRUTH - 1)
    assert failure.code == "wrong_byte_count"
    assert "-1 bytes" in failure.message


def test_faults_do_not_hide_each_other(tokenizer, ids):
    found = codes(tokenizer, ids[1:], claimed_bytes=1, scored_targets=1000)
    assert found == ["no_document_boundary", "wrong_byte_count", "targets_scored_twice"]


def test_foreign_ids_are_refused(tokenizer):
    with pytest.raises(InputError, match="id 9999"):
        audit_bytes(tokenizer, [tokenizer.bos, 9999])
