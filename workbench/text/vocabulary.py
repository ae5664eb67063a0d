"""What every tokenizer here knows: the exact bytes of each id, and how to count them.

Bits per byte divides by the bytes of the *text*. The count is exact only if each id says which
bytes it stands for, so a `Tokenizer` is that table plus an encoder; how the table is derived from
a model file is the business of `workbench.text.sentencepiece_model` and
`workbench.text.huggingface_model`.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.folder import InputError, replacing

SPACE_MARK = "\u2581"  # how SentencePiece writes a space, and how `pieces` shows one
BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
MODEL_FILES = {  # the file that `save` writes for each kind
    "sentencepiece": "tokenizer.model",
    "huggingface": "tokenizer.json",
    "bytes": "bytes.txt",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokenizer:
    """A loaded tokenizer: an encoder and the byte table of its vocabulary.

    A class because it holds a loaded model. Two tokenizers are the same when `hash` is.
    """

    kind: str  # "sentencepiece", "bytes" or "huggingface"
    pieces: tuple[str, ...] = field(repr=False)  # each id as a person reads it
    # The text each id stands for; b"" for control and unused ids.
    token_bytes: tuple[bytes, ...] = field(repr=False)
    boundary: NDArray[np.bool_] = field(repr=False)  # (vocabulary,) control, unknown and unused ids
    # (vocabulary,) ids that spell one byte as <0xNN>
    byte_fallback: NDArray[np.bool_] = field(repr=False)
    drops_leading_space: bool  # the encoder puts a space before every text, which is not its own
    bos: int  # id that begins a document
    model: bytes = field(repr=False)  # the model file
    encoder: Callable[[str], Sequence[int]] = field(repr=False)

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return len(self.token_bytes)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the model file."""
        return hashlib.sha256(self.model).hexdigest()

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each id, its leading space included; shape (vocabulary,)."""
        return np.array([len(raw) for raw in self.token_bytes], dtype=np.int64)

    @cached_property
    def space_led(self) -> NDArray[np.bool_]:
        """Whether the text of each id begins with a space; shape (vocabulary,)."""
        return np.array([raw.startswith(b" ") for raw in self.token_bytes], dtype=bool)

    def encode(self, text: str) -> NDArray[np.int32]:
        """Turn text into ids, without a document mark.

        Raises
        ------
        InputError
            If the text holds half of a surrogate pair, which no UTF-8 file can.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            where, wanted = "text to encode", "text that UTF-8 can write"
            found = f"the lone surrogate U+{ord(text[error.start]):04X} at {error.start}"
            remedy = "Decode the source as UTF-8, or remove the character."
            raise InputError(where, expected=wanted, found=found, remedy=remedy) from None
        return np.asarray(self.encoder(text), dtype=np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Join the bytes of `ids` and read them as UTF-8; broken characters become U+FFFD.

        Where the encoder adds a space before a text, the first space after a boundary, or at the
        very start, is taken off again: the text decoded is the text that `byte_counts` counts.
        """
        parts: list[bytes] = []
        fresh = True
        for token in ids:
            raw = self.token_bytes[token]
            added = self.drops_leading_space and fresh and raw.startswith(b" ")
            parts.append(raw[1:] if added else raw)
            fresh = bool(self.boundary[token])
        return b"".join(parts).decode("utf-8", errors="replace")

    def byte_counts(self, ids: ArrayLike, previous: ArrayLike) -> NDArray[np.int64]:
        """Count the bytes of text that each target stands for.

        Parameters
        ----------
        ids : (token,) int
            Targets.
        previous : (token,) int
            The token before each target.

        Returns
        -------
        (token,) int64
            Bytes. A space the encoder itself put at the start of a document counts 0.
        """
        targets, before = np.asarray(ids), np.asarray(previous)
        counts: NDArray[np.int64] = self.sizes[targets]
        if self.drops_leading_space:
            counts = counts - (self.space_led[targets] & self.boundary[before])
        return counts

    def save(self, folder: Path) -> Path:
        """Write the model file into `folder`, where `load_tokenizer` finds it."""
        path = Path(folder) / MODEL_FILES[self.kind]
        with replacing(path) as scratch:
            scratch.write_bytes(self.model)
        return path


def visible(raw: bytes) -> str:
    r"""Show the bytes of a token on one line: spaces marked, controls and fragments as <0xNN>.

    Examples
    --------
    >>> visible(b"\n"), visible(b"\xc3"), visible(b" the") == SPACE_MARK + "the"
    ('<0x0A>', '<0xC3>', True)
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return _hexadecimal(raw)
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    """Show one character; what cannot be seen, or would pass for a space mark, as bytes."""
    if character == " ":
        return SPACE_MARK
    hidden = unicodedata.category(character)[0] in "CZ" or character == SPACE_MARK
    return _hexadecimal(character.encode()) if hidden else character


def _hexadecimal(raw: bytes) -> str:
    """Spell bytes as <0xNN>."""
    return "".join(f"<0x{byte:02X}>" for byte in raw)


def tabulated(
    names: Sequence[str],
    texts: Sequence[bytes | None],
    *,
    kind: str,
    byte_fallback: Sequence[bool],
    bos: int,
    model: bytes,
    encoder: Callable[[str], Sequence[int]],
) -> Tokenizer:
    """Make a tokenizer of its table.

    Parameters
    ----------
    names : (vocabulary,) str
        How the model calls each id; shown where it stands for no text.
    texts : (vocabulary,) bytes or None
        The text that each id stands for; None for control, unknown and unused ids.
    kind, byte_fallback, bos, model, encoder
        See `Tokenizer`.
    """
    token_bytes = tuple(text or b"" for text in texts)
    shown = (
        name if text is None else visible(text) for name, text in zip(names, texts, strict=True)
    )
    first = list(encoder("a"))[:1]
    return Tokenizer(
        kind=kind,
        pieces=tuple(shown),
        token_bytes=token_bytes,
        boundary=np.array([text is None for text in texts], dtype=bool),
        byte_fallback=np.array(byte_fallback, dtype=bool),
        drops_leading_space=bool(first) and token_bytes[first[0]].startswith(b" "),
        bos=bos,
        model=model,
        encoder=encoder,
    )


def byte_tokenizer() -> Tokenizer:
    """Return the tokenizer whose ids are the 256 bytes, with id 256 to begin a document.

    Examples
    --------
    >>> byte_tokenizer().encode("no").tolist()
    [110, 111]
    """
    single = [bytes([byte]) for byte in range(256)]
    return tabulated(
        [*map(visible, single), "<|begin|>"],
        [*single, None],
        kind="bytes",
        byte_fallback=[False] * 257,
        bos=256,
        model=b"ids 0 to 255 are bytes, id 256 begins a document\n",
        encoder=lambda text: list(text.encode("utf-8")),
    )
