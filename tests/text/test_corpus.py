"""Corpora: what is detected, how it is split, and how each bad input is named."""

import io
import json
import re

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from workbench.folder import InputError, digest
from workbench.text import corpus as module
from workbench.text.corpus import encode_corpus, open_corpus, split_documents
from workbench.text.documents import cut_text
from workbench.text.shards import write_shard
from workbench.text.tokenizer import byte_tokenizer, load_tokenizer, train_tokenizer

ESSAYS = [f"Essay number {each}.\nIt is about the number {each}.\n" for each in range(60)]


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def refusal(path, **options):
    with pytest.raises(InputError) as caught:
        open_corpus(path, **options)
    return str(caught.value)


# --- cutting texts --------------------------------------------------------------------------


@given(st.text("ab= \n\r\u2028", max_size=300))
def test_cut_documents_joined_are_the_text(text):
    assert "".join(cut_text(text)) == text


@given(st.lists(st.sampled_from(["w" * 90, "\n", "\n\n", " \n\n", " "]), max_size=60))
def test_cut_paragraphs_joined_are_the_text(parts):
    text = "".join(parts)
    assert "".join(cut_text(text)) == text


def test_wikitext_titles():
    sections = " \n = = Part = = \n \n more \n \n = = = Deep = = = \n \n"
    text = f" \n = One = \n \n words \n{sections} a \n = not a title = \n b \n \n = Two = \n \n end"
    first, second = cut_text(text)
    assert first.startswith(" \n = One = \n")
    assert "Part" in first and "Deep" in first and "not a title" in first
    assert second == " = Two = \n \n end"


def test_text_before_the_first_title_is_a_document():
    assert cut_text("preface\n\n= A =\n\na\n\n= B =\n\nb")[0] == "preface\n\n"


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\n", " "])
def test_pieces_end_where_paragraphs_do(end):
    text = ("word " * 15 + "stop." + end) * 2000
    pieces = cut_text(text)
    assert len(pieces) > 20
    assert all(piece.endswith("stop." + end) or end == " " for piece in pieces)
    assert max(map(len, pieces)) < 4096 + 100


def test_a_text_without_places_to_cut_stays_whole():
    assert cut_text("w" * 9000) == ["w" * 9000]


# --- detection ------------------------------------------------------------------------------


def test_pair_of_texts(tmp_path):
    (tmp_path / "train.txt").write_text(" = A = \n\na\n\n = B = \n\nb\n")
    (tmp_path / "validation.txt").write_text("only this\n")
    (tmp_path / "test.txt").write_text("never read\n")
    opened = open_corpus(tmp_path)
    assert (opened.kind, len(opened.train), opened.validation) == ("text", 2, ("only this\n",))
    assert opened.source == str(tmp_path.resolve())
    assert len(repr(opened)) < 400


def test_folder_of_texts_makes_each_file_a_document(tmp_path):
    for number, essay in enumerate(ESSAYS):
        (tmp_path / f"{number:03}.txt").write_text(essay)
    (tmp_path / ".hidden.txt").write_bytes(b"\xff")
    (tmp_path / "notes.md").write_text("not a corpus file")
    opened = open_corpus(tmp_path)
    assert sorted(opened.train + opened.validation) == sorted(ESSAYS)
    assert opened.validation


def test_one_text(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(ESSAYS * 5).encode())
    opened = open_corpus(str(path))
    assert sum(map(len, opened.train + opened.validation)) == len("\r\n\r\n".join(ESSAYS * 5))
    assert open_corpus(tmp_path).hash == opened.hash  # a folder with one text is that text


@pytest.mark.parametrize("as_folder", [False, True])
def test_json_lines(tmp_path, as_folder):
    path = tmp_path / "data.jsonl"
    rows = [{"body": essay + "\u2028", "n": 1} for essay in ESSAYS] + [{"body": " "}]
    path.write_text(json_lines(rows) + "\n", encoding="utf-8")
    opened = open_corpus(tmp_path if as_folder else path, text_field="body")
    assert len(opened.train + opened.validation) == 60


def test_parquet(tmp_path):
    table = pyarrow.table({"text": [*ESSAYS, None], "n": list(range(61))})
    pyarrow.parquet.write_table(table, tmp_path / "data.parquet")
    opened = open_corpus(tmp_path / "data.parquet")
    assert sorted(opened.train + opened.validation) == sorted(ESSAYS)


def test_numbered_parquet_pair(tmp_path):
    for name, part in (
        ("train-00000-of-00002", ESSAYS[:20]),
        ("train-00001-of-00002", ESSAYS[20:40]),
        ("validation-00000-of-00001", ESSAYS[40:]),
        ("test-00000-of-00001", ["never read"]),
    ):
        pyarrow.parquet.write_table(pyarrow.table({"text": part}), tmp_path / f"{name}.parquet")
    opened = open_corpus(tmp_path)
    assert opened.train == tuple(ESSAYS[:40])
    assert opened.validation == tuple(ESSAYS[40:])


def test_json_lines_pair(tmp_path):
    (tmp_path / "train.jsonl").write_text(json_lines([{"text": "a"}, {"text": "b"}]))
    (tmp_path / "validation.jsonl").write_text(json_lines([{"text": "c"}]))
    opened = open_corpus(tmp_path)
    assert (opened.train, opened.validation) == (("a", "b"), ("c",))


def test_names_that_only_begin_like_a_split(tmp_path):
    (tmp_path / "training notes.txt").write_text("x")
    (tmp_path / "trains.txt").write_text("y")
    (tmp_path / "values.txt").write_text("z")
    opened = open_corpus(tmp_path)
    assert sorted(opened.train + opened.validation) == ["x", "y", "z"]


# --- splits ---------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=3), min_size=1, max_size=40))
def test_split_keeps_copies_together_and_orders_by_hash(documents):
    if len(set(documents)) < 2:
        with pytest.raises(InputError, match="two different documents"):
            split_documents(documents, where="here")
        return
    train, validation = split_documents(documents, where="here")
    assert train and validation
    assert not set(train) & set(validation)
    held_out = set(validation)
    ordered = sorted(documents, key=lambda each: digest(each))
    assert list(train) == [each for each in ordered if each not in held_out]
    assert list(validation) == [each for each in ordered if each in held_out]


def test_split_is_near_five_percent_and_stable():
    documents = [f"document {each}" for each in range(4000)]
    _, validation = split_documents(documents, where="here")
    assert 150 < len(validation) < 250
    _, fewer = split_documents(documents[:2000], where="here")
    assert set(fewer) == set(validation) & set(documents[:2000])


def test_hash_covers_both_splits(tmp_path):
    hashes = set()
    for train, validation in (("a", "b"), ("b", "a"), ("a", "c"), ("c", "b"), ("a", "b\n")):
        (tmp_path / "train.txt").write_text(train)
        (tmp_path / "validation.txt").write_text(validation)
        hashes.add(open_corpus(tmp_path).hash)
    assert len(hashes) == 5


# --- bad input ------------------------------------------------------------------------------


def test_unknown_name_names_the_nearest():
    message = refusal("python-doc")
    assert "'python-doc'" in message and "Nearest: python-docs" in message


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "none of them"),
        ({"a.md": b"x"}, "none of them"),
        ({"a.txt": b""}, r"a\.txt: expected text; found nothing \(it is empty\)"),
        ({"a.jsonl": b"\n \n"}, r"a\.jsonl: expected text; found nothing"),
        ({"a.txt": b"", "b.txt": b" \n"}, "expected text; found nothing"),
        ({"a.txt": b"one paragraph"}, "two different documents"),
        ({"a.txt": b"x", "b.txt": b"x"}, "2 copies of one"),
        ({"a.txt": b"abc\xe9def"}, r"a\.txt: .*byte 0xE9 at offset 3"),
        ({"a.txt": b"x", "b.jsonl": b"{}"}, r"ambiguous mixture of \.jsonl and \.txt"),
        ({"a.bin": b"x", "b.txt": b"x"}, r"ambiguous mixture of \.bin and \.txt"),
        ({"train.txt": b"x", "validation.txt": b"y", "z.txt": b"z"}, r"the pair and z\.txt"),
        ({"train.txt": b"x", "validation.txt": b" "}, r"validation\.txt: expected text"),
        ({"a.jsonl": b'{"text": "x"}\n\n{"text": '}, "line 3: expected one JSON object"),
        ({"a.jsonl": b'["x"]\n'}, "line 1: .* found a JSON list"),
        ({"a.jsonl": b'{"body": "x", "n": 1}'}, "line 1: .*'text'.*found fields body, n"),
        ({"a.jsonl": b'{"text": 5}'}, "line 1: expected text; found int in field 'text'"),
        ({"a.jsonl": b'{"text": "a\\ud800"}'}, r"line 1: .* lone surrogate U\+D800"),
        ({"a.jsonl": b'{"text": "\xff"}'}, "byte 0xFF at offset 10"),
        ({"a.parquet": b"PAR1"}, r"a\.parquet: expected a Parquet file"),
    ],
)
def test_bad_folders_are_named(tmp_path, files, expected):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert re.search(expected, refusal(tmp_path))


def test_bad_parquet_fields(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"body": ["x"], "text_2": [3]}), path)
    assert "found fields body, text_2. Set text_field. Nearest: text_2." in refusal(path)
    assert "row 1: expected text; found int" in refusal(path, text_field="text_2")


@pytest.mark.parametrize("name", ["a.csv", "README", "one_train.bin"])
def test_bad_files(tmp_path, name):
    (tmp_path / name).write_text("x")
    assert name in refusal(tmp_path / name)


# --- encoding -------------------------------------------------------------------------------


def test_encoded_documents_begin_with_the_mark(tmp_path):
    (tmp_path / "train.jsonl").write_text(json_lines([{"text": "ab"}, {"text": "c"}]))
    (tmp_path / "validation.jsonl").write_text(json_lines([{"text": "d\u00e9"}]))
    train, validation = encode_corpus(open_corpus(tmp_path), byte_tokenizer())
    assert train.ids.tolist() == [256, 97, 98, 256, 99]
    assert train.starts.tolist() == [0, 3]
    assert train.ids.dtype == np.int32 and train.starts.dtype == np.int64
    assert validation.ids.tolist() == [256, 100, 0xC3, 0xA9]
    assert train.answers is None


# --- shards ---------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path):
    """Two training shards out of order, one validation shard, and their model."""
    tokenizer = train_tokenizer(["the cat sat on the mat"] * 3, vocab_size=275)
    (tmp_path / "tiny.model").write_bytes(tokenizer.model)
    text = tokenizer.encode("the cat").tolist()
    write_shard(tmp_path / "fineweb_train_000001.bin", [*text, tokenizer.bos, 5])
    write_shard(tmp_path / "fineweb_train_000000.bin", [tokenizer.bos, *text])
    write_shard(tmp_path / "fineweb_val_000000.bin", text)
    return tmp_path


def test_shards(shards):
    opened = open_corpus(shards)
    tokenizer = load_tokenizer(opened.tokenizer_path)
    text = tokenizer.encode("the cat").tolist()
    assert (opened.kind, opened.train, opened.validation) == ("shards", (), ())
    assert opened.train_ids.tolist() == [1, *text, *text, 1, 5]
    train, validation = encode_corpus(opened, tokenizer)
    assert train.ids.tolist() == opened.train_ids.tolist()
    assert train.ids.dtype == np.int32
    assert train.starts.tolist() == [0, 1 + 2 * len(text)]
    assert validation.starts.tolist() == [0]  # no mark at all: one document


def test_shards_refuse_another_tokenizer(shards):
    opened = open_corpus(shards)
    with pytest.raises(InputError, match=r"tiny\.model .* found a bytes tokenizer"):
        encode_corpus(opened, byte_tokenizer())
    (shards / "tiny.model").unlink()
    alone = open_corpus(shards)
    assert alone.tokenizer_path is None
    assert alone.hash == opened.hash
    with pytest.raises(InputError, match="ids below 257"):
        encode_corpus(alone, byte_tokenizer())


def test_shard_hash_covers_both_splits(shards):
    before = open_corpus(shards).hash
    write_shard(shards / "fineweb_val_000000.bin", [7])
    assert open_corpus(shards).hash != before


def test_bad_shard_folders(shards):
    assert "Name the folder" in refusal(shards / "fineweb_val_000000.bin")
    (shards / "other.model").write_bytes(b"x")
    assert "ambiguous choice: other.model, tiny.model" in refusal(shards)
    (shards / "other.model").unlink()
    write_shard(shards / "fineweb_val_000000.bin", [])
    assert "1 of them, without tokens" in refusal(shards)
    (shards / "fineweb_val_000000.bin").unlink()
    assert "fineweb_val_000000.bin, with tokens; found none" in refusal(shards)


def test_official_style_round_trip(tmp_path):
    """Text to shards with the official settings and back: bytes counted are bytes decoded."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(ESSAYS),
        model_writer=file,
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
    )
    (tmp_path / "official.model").write_bytes(file.getvalue())
    tokenizer = load_tokenizer(tmp_path)
    stream = [part for each in ESSAYS for part in (tokenizer.bos, *tokenizer.encode(each))]
    write_shard(tmp_path / "x_train_0.bin", stream)
    write_shard(tmp_path / "x_val_0.bin", stream)
    _, validation = encode_corpus(open_corpus(tmp_path), tokenizer)
    ids = validation.ids
    spelled = sum(len(" ".join(each.split()).encode()) for each in ESSAYS)
    assert tokenizer.byte_counts(ids[1:], ids[:-1]).sum() == spelled
    assert validation.n_document == len(ESSAYS)


# --- known names ----------------------------------------------------------------------------


def test_python_docs_by_name(monkeypatch):
    monkeypatch.setattr(module, "python_docs", lambda: tuple(ESSAYS))
    opened = open_corpus("python-docs")
    assert (opened.name, opened.source, opened.kind) == ("python-docs", "python-docs", "text")
    assert sorted(opened.train + opened.validation) == sorted(ESSAYS)
    assert opened.hash == digest(digest(*opened.train), digest(*opened.validation))


def test_closed_world_by_name():
    opened = open_corpus("closed-world")
    assert opened.kind == "world"
    assert opened.hash == opened.world.hash
    assert len(opened.train) == len(opened.world.train)
    assert opened.validation
