"""Eight classes of tokens, by the text they stand for, and deciles of frequency.

A token gets the first class of this table whose description is true of its bytes. *Visible*
means the first character that is not white space.

============  ====================================================================
control       no text: control, unknown and unused ids
byte          not UTF-8 on its own, so a fragment of a character
newline       only white space, with a line break
whitespace    only white space
digit         its visible character is a number (Unicode N)
punctuation   its visible character is neither number, letter nor mark
word_start    led by a letter, with white space before it in the token
continuation  led by a letter, with nothing before it
============  ====================================================================

One rule looks at the text around: a continuation whose previous token is a boundary or ends in
white space is a word_start, since the space may be a token of its own or belong to a document's
beginning. A byte-fallback id of an ASCII character is that character: the classes speak about the
text, not about how the vocabulary spells it.
"""

import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.folder import digest
from workbench.text.vocabulary import Tokenizer

TOKEN_CLASSES = (
    "control",
    "byte",
    "newline",
    "whitespace",
    "digit",
    "punctuation",
    "word_start",
    "continuation",
)
VERSION = "1"  # of the table above; part of the hash
N_DECILE = 10
WORD_START = TOKEN_CLASSES.index("word_start")
CONTINUATION = TOKEN_CLASSES.index("continuation")


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassScheme:
    """The class of every id of one vocabulary. Two schemes are the same when `hash` is."""

    base: NDArray[np.int8]  # (vocabulary,) index into TOKEN_CLASSES
    opens: NDArray[np.bool_]  # (vocabulary,) a letter-led token after this one starts a word
    hash: str


def class_scheme(tokenizer: Tokenizer) -> ClassScheme:
    """Classify every id of a tokenizer."""
    pairs = list(zip(tokenizer.token_bytes, tokenizer.boundary.tolist(), strict=True))
    names = ["control" if boundary else token_class(raw) for raw, boundary in pairs]
    base = np.array([TOKEN_CLASSES.index(name) for name in names], dtype=np.int8)
    opens = np.array([boundary or raw[-1:].isspace() for raw, boundary in pairs], dtype=bool)
    return ClassScheme(
        base=base, opens=opens, hash=digest(VERSION, base.tobytes(), opens.tobytes())
    )


def token_class(raw: bytes) -> str:
    r"""Name the class of a token from its bytes alone.

    Examples
    --------
    >>> [token_class(raw) for raw in (b" the", b"ing", b"\n", b" 42", b" (see", b"\xe2")]
    ['word_start', 'continuation', 'newline', 'digit', 'punctuation', 'byte']
    """
    if not raw:
        return "control"
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return "byte"
    visible = text.lstrip()
    if not visible:
        return "newline" if "\n" in text or "\r" in text else "whitespace"
    category = unicodedata.category(visible[0])[0]
    if category == "N":
        return "digit"
    if category not in "LM":
        return "punctuation"
    return "continuation" if visible == text else "word_start"


def classify(scheme: ClassScheme, ids: ArrayLike, previous: ArrayLike) -> NDArray[np.int8]:
    """Return the class of each target, given the token before it.

    Parameters
    ----------
    scheme : ClassScheme
        Classes of the vocabulary.
    ids, previous : (token,) int
        Targets, and the token before each.

    Returns
    -------
    (token,) int8
        Index into `TOKEN_CLASSES`.
    """
    base: NDArray[np.int8] = scheme.base[np.asarray(ids)]
    starts = (base == CONTINUATION) & scheme.opens[np.asarray(previous)]
    return np.where(starts, np.int8(WORD_START), base)


def frequency_deciles(counts: ArrayLike) -> NDArray[np.int8]:
    """Cut a vocabulary into ten groups that each hold a tenth of the training tokens.

    Ids are ranked from rare to frequent, ties by id. An id belongs to the tenth in which the last
    of its occurrences falls, so a very frequent token may leave lower groups empty.

    Parameters
    ----------
    counts : (vocabulary,) int
        Occurrences of each id in the training split.

    Returns
    -------
    (vocabulary,) int8
        0, the rarest tenth (never-seen ids too), to 9, the most frequent.

    Examples
    --------
    >>> frequency_deciles([0, 1, 8, 1]).tolist()
    [0, 0, 9, 1]
    """
    number = np.asarray(counts, dtype=np.int64)
    order = np.argsort(number, kind="stable")
    running = np.cumsum(number[order])
    deciles = np.zeros(len(number), dtype=np.int8)
    total = int(running[-1]) if len(running) else 0
    if total:
        deciles[order] = np.maximum(0, (N_DECILE * running - 1) // total)
    return deciles
