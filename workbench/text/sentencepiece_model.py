"""SentencePiece models: trained here without loss, or loaded as they are.

SentencePiece is lossy by default: it may normalise characters, squeeze spaces, add one in front,
and always writes a space as U+2581. A model trained here has all of that switched off, and a
real U+2581 goes in as its three byte pieces, so that every UTF-8 text comes back exactly.
"""

import io
import re
from collections.abc import Iterable, Iterator

import numpy as np
import sentencepiece

from workbench.folder import InputError
from workbench.text.vocabulary import BYTE_PIECE, SPACE_MARK, Tokenizer, visible

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
        return InputError(
            "tokenizer training",
            expected="documents with text",
            found="no text",
            remedy="Name a text corpus; token shards need their .model beside them.",
        )
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
        raise InputError(
            where,
            expected="a SentencePiece model",
            found=f"bytes it cannot read ({error})",
            remedy="Copy the file again; Git LFS pointers are not models.",
        ) from None
    names = [processor.id_to_piece(token) for token in range(size)]
    boundary = np.array([_is_boundary(processor, token) for token in range(size)], dtype=bool)
    fallback = np.array([processor.is_byte(token) for token in range(size)], dtype=bool)
    token_bytes = tuple(
        b"" if boundary[token] else _piece_bytes(name, is_byte=bool(fallback[token]))
        for token, name in enumerate(names)
    )
    first = processor.encode("a")[:1]
    drops = bool(first) and token_bytes[first[0]].startswith(b" ")
    of_byte = {token_bytes[token][0]: int(token) for token in np.flatnonzero(fallback)}
    exact = not drops and len(of_byte) == 256
    return Tokenizer(
        kind="sentencepiece",
        pieces=tuple(
            name if boundary[token] else visible(token_bytes[token])
            for token, name in enumerate(names)
        ),
        token_bytes=token_bytes,
        boundary=boundary,
        byte_fallback=fallback,
        drops_leading_space=drops,
        bos=_begin(processor, where),
        model=model,
        encoder=_Escaping(processor, of_byte).encode if exact else processor.encode,
    )


class _Escaping:
    """Encode around real U+2581 characters, which SentencePiece would take for spaces."""

    def __init__(
        self, processor: sentencepiece.SentencePieceProcessor, of_byte: dict[int, int]
    ) -> None:
        self.processor = processor
        self.mark = [of_byte[byte] for byte in SPACE_MARK.encode()]

    def encode(self, text: str) -> list[int]:
        """Encode the stretches between the marks, and each mark as bytes."""
        first, *rest = text.split(SPACE_MARK)
        ids: list[int] = self.processor.encode(first)
        for part in rest:
            ids += self.mark
            ids += self.processor.encode(part)
        return ids


def _is_boundary(processor: sentencepiece.SentencePieceProcessor, token: int) -> bool:
    """Tell whether an id stands for no text."""
    control, unused = processor.is_control(token), processor.is_unused(token)
    return bool(control or unused or processor.is_unknown(token))


def _piece_bytes(name: str, *, is_byte: bool) -> bytes:
    """Return the text of a piece."""
    matched = BYTE_PIECE.fullmatch(name) if is_byte else None
    return bytes([int(matched[1], 16)]) if matched else name.replace(SPACE_MARK, " ").encode()


def _begin(processor: sentencepiece.SentencePieceProcessor, where: object) -> int:
    """Return the id that begins a document: the model's own, else its end-of-text piece."""
    for token in (processor.bos_id(), processor.eos_id()):
        if token >= 0:
            return int(token)
    raise InputError(
        where,
        expected="a piece that begins or ends a document",
        found="neither a bos nor an eos piece",
        remedy="Train the model with bos_id or eos_id set.",
    )
