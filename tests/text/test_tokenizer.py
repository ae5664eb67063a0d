"""Tokenizers: exact round trips, exact byte counts, and refusal of what cannot be counted."""

import hashlib
import io
import json

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from workbench.folder import InputError
from workbench.text.sentencepiece_model import sentencepiece_tokenizer
from workbench.text.tokenizer import (
    byte_tokenizer,
    load_tokenizer,
    tokenizer_losses,
    train_tokenizer,
)
from workbench.text.vocabulary import visible

PROSE = [
    "The cat sat on the mat, and the <unk> dog sat on the log.\n\n    indented code\n",
    "\ttab <s>\u2581mark\u2585 then the cat again; caf\u00e9 the cat <unk> <unk>\x00 the end\r\n",
]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
AWKWARD_TEXT = st.text("\u2581\u2585\u2047\ufeff\ufffd\x00\x01\x7f\r\n\t e\u0301\u00e9<unk>s0x1A|")


@pytest.fixture(scope="module")
def trained():
    return train_tokenizer(PROSE * 3, vocab_size=330)


def official(documents, vocab_size):
    """Train with SentencePiece's own defaults: a space in front, characters normalised."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(documents),
        model_writer=file,
        vocab_size=vocab_size,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    return file.getvalue()


@pytest.fixture(scope="module")
def official_model():
    return official(PROSE * 3, 330)


# --- trained here ---------------------------------------------------------------------------


@given(text=st.one_of(ANY_TEXT, AWKWARD_TEXT))
def test_trained_tokenizer_is_lossless(trained, text):
    ids = trained.encode(text)
    assert ids.dtype == np.int32
    assert trained.decode(ids) == text
    previous = np.concatenate([[trained.bos], ids[:-1]])[: len(ids)]
    counts = trained.byte_counts(ids, previous)
    assert counts.dtype == np.int64
    assert counts.sum() == len(text.encode())


def test_every_single_character_survives(trained):
    text = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x10000), 0x10000, 0x10FFFF)))
    assert trained.decode(trained.encode(text)) == text


def test_training_repeats_and_is_quiet(trained, capfd):
    again = train_tokenizer(iter(PROSE * 3), vocab_size=330)
    assert again.hash == trained.hash == hashlib.sha256(trained.model).hexdigest()
    assert capfd.readouterr() == ("", "")


def test_newline_is_a_piece_of_its_own(trained):
    (token,) = trained.encode("\n")
    assert trained.token_bytes[token] == b"\n"
    assert not trained.byte_fallback[token]
    assert [raw for raw in trained.token_bytes if b"\n" in raw] == [b"\n", b"\n"]  # and <0x0A>
    assert len(repr(trained)) < 300


def test_control_names_in_the_text_are_text(trained):
    assert "unk" in trained.pieces  # frequent, so merged like any word
    assert not trained.boundary[trained.encode("<s><unk><|begin|>")].any()


def test_code_indentation_becomes_pieces():
    source = "if x:\n        return y\n        yield z\n" * 5
    tokenizer = train_tokenizer([source], vocab_size=300)
    assert len(tokenizer.encode(" " * 8)) < 8


def test_long_lines_are_learned_from():
    tokenizer = train_tokenizer(["abracadabra " * 2000], vocab_size=280)
    assert "abracadabra" in "".join(tokenizer.pieces)


@pytest.mark.parametrize("size", [-1, 0, 10, 270])
def test_too_small_a_vocabulary_names_the_smallest(size):
    text = ["".join(map(chr, range(33, 127)))]
    with pytest.raises(InputError, match=f"at least 353 .* found {size}") as caught:
        train_tokenizer(text, vocab_size=size)
    assert "vocab_size to 353" in caught.value.remedy
    assert train_tokenizer(text, vocab_size=353).vocab_size == 353


def test_too_large_a_vocabulary_names_the_largest():
    with pytest.raises(InputError, match="at most 262"):
        train_tokenizer(["ab"], vocab_size=1024)
    assert train_tokenizer(["ab"], vocab_size=262).vocab_size == 262


@pytest.mark.parametrize("documents", [[], [""], ["\n\n"]])
def test_training_on_nothing(documents):
    with pytest.raises(InputError, match="no text"):
        train_tokenizer(documents, vocab_size=300)


# --- bytes ----------------------------------------------------------------------------------


@given(ANY_TEXT)
def test_byte_tokenizer_is_utf8(text):
    tokenizer = byte_tokenizer()
    assert tokenizer.encode(text).tolist() == list(text.encode())
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_byte_tokenizer_table():
    tokenizer = byte_tokenizer()
    assert (tokenizer.vocab_size, tokenizer.bos, tokenizer.kind) == (257, 256, "bytes")
    assert np.flatnonzero(tokenizer.boundary).tolist() == [256]
    assert tokenizer.decode([256, 0xFF, 65]) == "\ufffdA"
    assert [tokenizer.pieces[each] for each in (10, 32, 65, 200)] == [
        "<0x0A>",
        "\u2581",
        "A",
        "<0xC8>",
    ]


@given(st.binary(max_size=8))
def test_visible_is_one_line(raw):
    assert all(each.isprintable() for each in visible(raw))


@pytest.mark.parametrize("make", [byte_tokenizer, lambda: train_tokenizer(["ab"], vocab_size=262)])
def test_lone_surrogates_are_refused(make):
    with pytest.raises(InputError, match=r"U\+D800 at 2"):
        make().encode("ab\ud800")


# --- models made elsewhere ------------------------------------------------------------------


def parameter_golf_bytes(processor, targets, previous):
    """Count bytes one token at a time by the official rule."""

    def is_boundary(token):
        checks = (processor.is_control, processor.is_unknown, processor.is_unused)
        return any(check(token) for check in checks)

    total = 0
    for target, before in zip(targets, previous, strict=True):
        piece = processor.id_to_piece(target)
        if is_boundary(target):
            continue
        if processor.is_byte(target):
            total += 1
        elif piece.startswith("\u2581"):
            total += len(piece[1:].encode()) + (not is_boundary(before))
        else:
            total += len(piece.encode())
    return total


def test_official_byte_rule(official_model):
    processor = sentencepiece.SentencePieceProcessor(model_proto=official_model)
    tokenizer = sentencepiece_tokenizer(official_model, where="test")
    assert tokenizer.drops_leading_space
    stream = []
    for document in ("The cat sat. \u00e9t\u00e9 \U0001f600", "dog", "  the\nlog "):
        stream += [1, *processor.encode(document)]
    assert tokenizer.encode("the log").tolist() == processor.encode("the log")
    counted = int(tokenizer.byte_counts(stream[1:], stream[:-1]).sum())
    assert counted == parameter_golf_bytes(processor, stream[1:], stream[:-1])
    assert counted == len(tokenizer.decode(stream).encode())
    assert tokenizer.decode(stream) == "The cat sat. \u00e9t\u00e9 \U0001f600" + "dog" + "the log"


def test_official_losses_are_reported(official_model):
    tokenizer = sentencepiece_tokenizer(official_model, where="test")
    documents = ["fine", "two\nlines", "a  b \u2581", "\ufb01n"]
    losses = tokenizer_losses(tokenizer, documents)
    assert losses["documents"] == 4
    assert losses["documents_changed"] == 3
    assert losses["bytes_raw"] == sum(len(each.encode()) for each in documents)
    assert losses["bytes_decoded"] == len("fine" + "two lines" + "a b" + "fin")
    assert losses["characters_lost"]["\n"] == 1
    assert losses["characters_lost"]["\ufb01"] == 1
    assert losses["example"] == {"document": 1, "raw": "two\nlines", "decoded": "two lines"}


def test_a_lossless_tokenizer_has_no_losses(trained):
    losses = tokenizer_losses(trained, PROSE)
    assert losses["documents_changed"] == 0
    assert losses["bytes_raw"] == losses["bytes_decoded"]
    assert losses["characters_lost"] == {}
    assert losses["example"] is None


def test_boundaries_are_no_text(official_model):
    tokenizer = sentencepiece_tokenizer(official_model, where="test")
    assert tokenizer.boundary[:4].all()
    assert not tokenizer.boundary[4:].any()
    assert tokenizer.token_bytes[:4] == (b"",) * 4
    assert tokenizer.token_bytes[4 + 0xE9] == b"\xe9"
    assert tokenizer.byte_fallback.sum() == 256
    assert tokenizer.pieces[:4] == ("<pad>", "<s>", "</s>", "<unk>")


# --- Hugging Face ---------------------------------------------------------------------------


def byte_level(*, add_prefix_space=False, special=("<|endoftext|>",)):
    """Train a GPT-2 style tokenizer.json."""
    model = tokenizers.Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(PROSE * 3, trainer)
    return model


def llama_style():
    """Train a tokenizer.json with U+2581 for spaces and byte fallback, as Llama 2 has."""
    model = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    model.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    model.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=specials, show_progress=False)
    model.train_from_iterator(["the cat sat on the mat and the dog"] * 3, trainer)
    content = json.loads(model.to_str())
    content["added_tokens"] = content["added_tokens"][:3]  # byte tokens are ordinary ones
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def loaded(model, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(model.to_str(), encoding="utf-8")
    return load_tokenizer(path)


@pytest.fixture(scope="module")
def gpt2_style(tmp_path_factory):
    return loaded(byte_level(), tmp_path_factory.mktemp("byte_level"))


@given(text=st.one_of(ANY_TEXT, AWKWARD_TEXT))
def test_byte_level_is_lossless(gpt2_style, text):
    ids = gpt2_style.encode(text)
    assert gpt2_style.decode(ids) == text
    assert gpt2_style.sizes[ids].sum() == len(text.encode())


def test_byte_level_properties(gpt2_style):
    assert gpt2_style.kind == "huggingface"
    assert not gpt2_style.drops_leading_space
    assert gpt2_style.pieces[gpt2_style.bos] == "<|endoftext|>"
    assert np.flatnonzero(gpt2_style.boundary).tolist() == [gpt2_style.bos]
    assert sorted(raw for raw in gpt2_style.token_bytes if len(raw) == 1) == [
        bytes([byte]) for byte in range(256)
    ]
    assert gpt2_style.bos not in gpt2_style.encode("<|endoftext|>")  # it is text there


def test_space_in_front_is_not_counted(tmp_path):
    tokenizer = loaded(byte_level(add_prefix_space=True), tmp_path)
    ids = tokenizer.encode("the cat")
    assert tokenizer.drops_leading_space
    assert tokenizer.byte_counts(ids, [tokenizer.bos, *ids[:-1]]).sum() == len("the cat")
    assert tokenizer.decode(ids) == "the cat"


@pytest.mark.parametrize("text", ["the cat", "caf\u00e9 \U0001f600 cat", "a  b", "the\ncat"])
def test_byte_fallback_agrees_with_the_library(tmp_path, text):
    model = llama_style()
    tokenizer = loaded(model, tmp_path)
    ids = tokenizer.encode(text)
    assert tokenizer.drops_leading_space
    assert tokenizer.decode(ids) == model.decode(ids.tolist()) == text
    assert tokenizer.byte_counts(ids, [tokenizer.bos, *ids[:-1]]).sum() == len(text.encode())
    assert tokenizer.pieces[tokenizer.bos] == "<s>"
    assert tokenizer.boundary.sum() == 3
    assert tokenizer.byte_fallback.sum() == 256


@pytest.mark.parametrize(
    ("decoder", "found"),
    [
        (decoders.WordPiece(), "decoder WordPiece"),
        (decoders.BPEDecoder(), "decoder BPEDecoder"),
        (decoders.CTC(), "decoder CTC"),
        (decoders.Replace("a", "b"), "decoder Replace"),
        (decoders.Metaspace(replacement="_"), "decoder Metaspace"),
        (decoders.Fuse(), "decoder Fuse alone"),
        (None, "no decoder"),
    ],
)
def test_unprovable_decoders_are_refused(tmp_path, decoder, found):
    model = byte_level()
    content = json.loads(model.to_str())
    if decoder is not None:
        model.decoder = decoder
        content = json.loads(model.to_str())
    else:
        content["decoder"] = None
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=found) as caught:
        load_tokenizer(path)
    assert "cannot be proven" in caught.value.remedy


def test_a_special_token_is_needed(tmp_path):
    with pytest.raises(InputError, match="a special token to begin documents"):
        loaded(byte_level(special=()), tmp_path)


def test_ids_nobody_has_are_boundaries(tmp_path):
    content = json.loads(byte_level().to_str())
    vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
    gone = next(name for name, token in vocabulary.items() if token == 297)
    del vocabulary[gone]
    content["model"]["merges"] = [
        each for each in merges if gone not in each and "".join(each) != gone
    ]
    tokenizer = loaded(tokenizers.Tokenizer.from_str(json.dumps(content)), tmp_path)
    assert tokenizer.vocab_size == 300
    assert tokenizer.token_bytes[297] == b""
    assert np.flatnonzero(tokenizer.boundary).tolist() == [tokenizer.bos, 297]


def test_added_text_is_text(tmp_path):
    model = byte_level()
    model.add_tokens(["caf\u00e9 au lait"])
    tokenizer = loaded(model, tmp_path)
    (token,) = tokenizer.encode("caf\u00e9 au lait")
    assert tokenizer.token_bytes[token] == "caf\u00e9 au lait".encode()


# --- files ----------------------------------------------------------------------------------


def test_save_and_load(tmp_path, trained, gpt2_style):
    for tokenizer in (trained, gpt2_style, byte_tokenizer()):
        folder = tmp_path / tokenizer.kind
        path = tokenizer.save(folder)
        for source in (folder, path):
            again = load_tokenizer(source)
            assert again.kind == tokenizer.kind
            assert again.hash == tokenizer.hash
            assert again.pieces == tokenizer.pieces
            assert again.token_bytes == tokenizer.token_bytes
            text = "the \u2581 caf\u00e9\n"
            assert again.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_folder_with_a_foreign_model(tmp_path, official_model):
    (tmp_path / "some_1024_bpe.model").write_bytes(official_model)
    assert load_tokenizer(str(tmp_path)).kind == "sentencepiece"
    (tmp_path / "other.model").write_bytes(official_model)
    with pytest.raises(InputError, match=r"other\.model, some_1024_bpe\.model"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["gone.model", "empty", "vocab.txt"])
def test_no_tokenizer_there(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "vocab.txt").write_text("a")
    with pytest.raises(InputError, match="one tokenizer"):
        load_tokenizer(tmp_path / name)


@pytest.mark.parametrize("name", ["broken.model", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", b"{}", b"\xff\xfe"])
def test_broken_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        load_tokenizer(tmp_path / name)
