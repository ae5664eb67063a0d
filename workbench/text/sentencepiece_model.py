"""SentencePiece models: trained here without loss, or loaded as they are.

SentencePiece is lossy by default: it may normalise characters, squeeze spaces, add one in front,
and always writes a space as U+2581. A model trained here has all of that switched off, and a
real U+2581 goes in as its three byte pieces, so that every UTF-8 text comes back exactly.
"""

import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import sentencepiece

from workbench.folder import InputError
from workbench.text.vocabulary import BYTE_PIECE, SPACE_MARK, Tokenizer, tabulated

# Characters the trainer either reserves (it skips the whole line) or takes for a space.
RESERVED = re.compile("[\n\x00\t\u2581\u2585]")

SPECIALS = 3  # unknown, beginning, newline


def train_tokenizer(documents: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Train a lossless byte-pair tokenizer; the same documents give the same model.

    Parameters
    ----------
    documents : iterable of str
        Training text only, so that the vocabulary does not know the validation text.
    vocab_size : int
        Ids in all: 256 bytes, three special pieces, the characters, and the merges.

    Raises
    ------
    InputError
        If there is no text, or `vocab_size` is too small or too large for it; the message says
        which size works.
    """
    file = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(documents),
            model_writer=file,
            model_type="bpe",
            vocab_size=max(SPECIALS, vocab_size),  # so that 0 too is told the size that works
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            user_defined_symbols=["\n"],
            # Not the usual "<unk>" and "<s>": corpora hold those as text, to be merged as such.
            unk_piece="<|unknown|>",
            bos_piece="<|begin|>",
            eos_id=-1,
            pad_id=-1,
            max_sentence_length=2**30,  # by default longer lines are left out
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _refusal(vocab_size, str(error)) from None
    return sentencepiece_tokenizer(file.getvalue(), where="trained model")


def _lines(documents: Iterable[str]) -> Iterator[str]:
    """Cut documents into lines the trainer accepts."""
    for document in documents:
        yield from (line for line in RESERVED.split(document) if line)


def _refusal(vocab_size: int, message: str) -> InputError:
    """Turn the trainer's complaint into the size that works."""
    small = re.search(r"smaller than required_chars\. -?\d+ vs (\d+)", message)
    large = re.search(r"too high .* value <= (\d+)", message)
    if small:
        expected = f"at least {small[1]} (256 bytes, specials and the characters of the corpus)"
        remedy = f"Set vocab_size to {small[1]} or more, or use the byte tokenizer."
    elif large:
        expected = f"at most {large[1]}, since the corpus holds no more merges"
        remedy = f"Set vocab_size to {large[1]} or less, or use a longer corpus."
    elif "sentences_.empty()" in message:
        remedy = "Name a text corpus; token shards need their .model beside them."
        where, wanted = "tokenizer training", "documents with text"
        return InputError(where, expected=wanted, found="no text", remedy=remedy)
    else:
        expected, remedy = "a size SentencePiece can train", f"SentencePiece says: {message}"
    return InputError("vocab_size", expected=expected, found=str(vocab_size), remedy=remedy)


def sentencepiece_tokenizer(model: bytes, *, where: object) -> Tokenizer:
    """Load a SentencePiece model from the bytes of its file.

    Parameters
    ----------
    model : bytes
        Contents of a ``.model`` file.
    where : object
        What an error message names.

    Raises
    ------
    InputError
        If the bytes are not a model, or no piece can begin a document.
    """
    try:
        # An empty file is refused here, since the library takes it for no model given.
        processor = sentencepiece.SentencePieceProcessor()
        processor.LoadFromSerializedProto(model)
        size = processor.get_piece_size()
    except RuntimeError as error:
        wanted, found = "a SentencePiece model", f"bytes it cannot read ({error})"
        remedy = "Copy the file again; Git LFS pointers are not models."
        raise InputError(where, expected=wanted, found=found, remedy=remedy) from None
    names = [processor.id_to_piece(token) for token in range(size)]
    fallback = [processor.is_byte(token) for token in range(size)]
    texts = [_text(processor, token) for token in range(size)]
    tokenizer = tabulated(
        names,
        texts,
        kind="sentencepiece",
        byte_fallback=fallback,
        bos=_begin(processor, where),
        model=model,
        encoder=processor.encode,
    )
    of_byte = {texts[token]: token for token in range(size) if fallback[token]}
    if tokenizer.drops_leading_space or len(of_byte) < 256:
        return tokenizer
    mark = [of_byte[bytes([byte])] for byte in SPACE_MARK.encode()]
    return replace(tokenizer, encoder=partial(_encode_around, processor.encode, mark))


def _encode_around(encode: Callable[[str], list[int]], mark: list[int], text: str) -> list[int]:
    """Encode around real U+2581 characters, which SentencePiece would take for spaces."""
    first, *rest = text.split(SPACE_MARK)
    ids = list(encode(first))
    for part in rest:
        ids += mark
        ids += encode(part)
    return ids


def _text(processor: sentencepiece.SentencePieceProcessor, token: int) -> bytes | None:
    """Return the text of a piece; None where an id stands for none."""
    if processor.is_control(token) or processor.is_unused(token) or processor.is_unknown(token):
        return None
    name = processor.id_to_piece(token)
    matched = BYTE_PIECE.fullmatch(name) if processor.is_byte(token) else None
    return bytes([int(matched[1], 16)]) if matched else name.replace(SPACE_MARK, " ").encode()


def _begin(processor: sentencepiece.SentencePieceProcessor, where: object) -> int:
    """Return the id that begins a document: the model's own, else its end-of-text piece."""
    for token in (processor.bos_id(), processor.eos_id()):
        if token >= 0:
            return int(token)
    wanted, remedy = "a piece that begins a document", "Train the model with bos_id or eos_id set."
    raise InputError(where, expected=wanted, found="neither a bos nor an eos piece", remedy=remedy)
