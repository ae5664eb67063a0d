"""Corpus and tokenizer opened together: what a run trains on, and that it stays the same."""

import json

import numpy as np
import pytest

from workbench.folder import InputError
from workbench.text import byte_tokenizer, open_data, reopen_data, write_shard

TEXTS = {"train": ["one two\n", "three\n", "one\n"], "validation": ["four four\n"]}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "corpus"
    path.mkdir()
    for split, texts in TEXTS.items():
        lines = "".join(json.dumps({"body": text}) + "\n" for text in texts)
        (path / f"{split}.jsonl").write_text(lines)
    return path


def decoded(data, tokens):
    return [data.tokenizer.decode(tokens.ids[tokens.document(n)]) for n in range(tokens.n_document)]


def test_both_splits_are_the_text(folder):
    data = open_data(folder, text_field="body", tokenizer="bytes")
    assert decoded(data, data.train) == TEXTS["train"]
    assert decoded(data, data.validation) == TEXTS["validation"]
    assert data.train.ids[data.train.starts].tolist() == [256] * 3
    assert data.train.answers is None


def test_identity_is_plain_and_complete(folder):
    data = open_data(folder, text_field="body", tokenizer="bytes")
    identity = json.loads(json.dumps(data.identity(), allow_nan=False))
    assert identity == {
        "source": str(folder.resolve()),
        "text_field": "body",
        "name": "corpus",
        "kind": "text",
        "corpus_hash": data.corpus.hash,
        "tokenizer_kind": "bytes",
        "tokenizer_hash": byte_tokenizer().hash,
        "vocab_size": 257,
        "train_tokens": 8 + 6 + 4 + 3,
        "train_documents": 3,
        "validation_tokens": 11,
        "validation_documents": 1,
        "validation_documents_changed": 0,
    }


def test_reopened_data_are_the_same_or_refused(folder, tmp_path):
    data = open_data(folder, text_field="body", tokenizer="bytes")
    data.tokenizer.save(tmp_path / "tokenizer")
    again = reopen_data(data.identity(), tmp_path / "tokenizer")
    assert again.identity() == data.identity()
    assert np.array_equal(again.train.ids, data.train.ids)

    path = folder / "validation.jsonl"
    path.write_text(path.read_text().replace("four four", "four five"))
    with pytest.raises(InputError, match="Restore the text") as caught:
        reopen_data(data.identity(), tmp_path / "tokenizer")
    assert caught.value.where == str(folder.resolve())
    assert data.corpus.hash[:12] in str(caught.value)


def test_a_tokenizer_is_trained_on_the_training_split(tmp_path):
    path = tmp_path / "corpus"
    path.mkdir()
    (path / "train.txt").write_text("banana bandana\n" * 200)
    (path / "validation.txt").write_text("zzyzx\n" * 20)
    data = open_data(path, vocab_size=280)
    assert data.tokenizer.vocab_size == 280 and data.tokenizer.kind == "sentencepiece"
    spelled = b" ".join(data.tokenizer.token_bytes)
    assert b"ban" in spelled and b"zz" not in spelled, "validation text teaches nothing"
    assert data.train.ids.max() < data.tokenizer.vocab_size
    assert "zzyzx" in data.tokenizer.decode(data.validation.ids)


def test_a_saved_tokenizer_is_used_as_it_is(folder, tmp_path):
    own = byte_tokenizer().save(tmp_path / "tokenizer")
    for given_path in (own, own.parent, str(own)):
        data = open_data(folder, text_field="body", tokenizer=given_path)
        assert data.tokenizer.hash == byte_tokenizer().hash
    with pytest.raises(InputError, match="tokenizer"):
        open_data(folder, text_field="body", tokenizer=tmp_path / "none.model")


def test_shards_bring_their_own_tokenizer(tmp_path):
    (tmp_path / "source").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "source" / f"{split}.txt").write_text("some words of text, again words\n" * 90)
    made = open_data(tmp_path / "source", vocab_size=280)
    shards = tmp_path / "shards"
    shards.mkdir()
    made.tokenizer.save(shards)
    for role, tokens in (("train", made.train), ("val", made.validation)):
        write_shard(shards / f"fineweb_{role}_000000.bin", tokens.ids)
    data = open_data(shards)
    assert data.identity()["kind"] == "shards"
    assert data.tokenizer.hash == made.tokenizer.hash
    assert np.array_equal(data.train.ids, made.train.ids)
    assert np.array_equal(data.validation.starts, made.validation.starts)


def test_the_closed_world_holds_out_its_questions():
    data = open_data("closed-world", vocab_size=512)
    assert data.identity()["kind"] == "world"
    train, held_out = decoded(data, data.train), decoded(data, data.validation)
    assert len(train) == 240 and not set(train) & set(held_out), "never asked in training"
    for tokens in (data.train, data.validation):
        for number in range(tokens.n_document):
            answers = tokens.answers[tokens.document(number)]
            first = int(np.argmax(answers))
            assert not answers[0] and answers[first:].all(), "the completion alone is learned"
            text = data.tokenizer.decode(tokens.ids[tokens.document(number)][first:])
            assert text.endswith(".") and len(text.split()) == 1
