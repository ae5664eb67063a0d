"""Catch wrong byte counts by name: the seven ways in which bits per byte came out too low.

Bits per byte is nats over bytes, so a denominator that is too large makes a model look better.
Each known fault leaves a signature that can be computed: a claim that exceeds the truth by
exactly one byte a space-led token was counted twice there, and so on.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.text.shards import check_vocabulary
from workbench.text.vocabulary import SPACE_MARK, Tokenizer

REMEDIES = {
    "no_space_piece": "Keep the piece U+2581 in the vocabulary and tokenise the text again.",
    "no_document_boundary": "Put it before every document when writing the tokens.",
    "transformed_text": "Divide by the bytes of the original text, kept beside the tokens.",
    "double_counted_space": "Add the space in one of the two places only.",
    "byte_token_as_three": "Count one byte for each byte token.",
    "wrong_byte_count": "Count with Tokenizer.byte_counts over exactly the targets scored.",
    "targets_scored_twice": "Let each window score only the targets no earlier window scored.",
    "wrong_validation_length": "Score the whole official split, truncated as its protocol says.",
}
CAUSES = {  # of a wrong claim
    "double_counted_space": "the space before a word counts in the table and again in the sum",
    "byte_token_as_three": "byte tokens count as the three bytes of U+FFFD, or as decoded",
    "wrong_byte_count": "no known fault explains it",
}


@dataclass(frozen=True, kw_only=True)
class ByteFailure:
    """One fault of a byte count, with what to do about it."""

    code: str
    expected: int  # bytes, targets or documents, as the message says
    found: int
    message: str
    remedy: str


def audit_bytes(
    tokenizer: Tokenizer,
    ids: ArrayLike,
    *,
    claimed_bytes: int | None = None,
    raw_text: str | None = None,
    scored_targets: int | NDArray[np.integer] | None = None,
    expected_targets: int | None = None,
) -> list[ByteFailure]:
    """Check a split, and what an evaluation claims about it.

    Parameters
    ----------
    tokenizer : Tokenizer
        The one that made `ids`.
    ids : (token,) int
        The split; its targets are ``ids[1:]``.
    claimed_bytes : int, optional
        Bytes the evaluation divided by, for exactly these targets.
    raw_text : str, optional
        The text that `ids` encodes, before any transformation.
    scored_targets : int or (target,) int, optional
        How many targets were scored, or better their offsets into `ids`, which also show
        duplicates that a count hides.
    expected_targets : int, optional
        How many targets the split is known to have.

    Returns
    -------
    list of ByteFailure
        Empty when nothing is wrong.

    Raises
    ------
    InputError
        If an id is beyond the vocabulary.

    Examples
    --------
    >>> from workbench.text.tokenizer import byte_tokenizer
    >>> audit_bytes(byte_tokenizer(), [256, 104, 105], claimed_bytes=2, raw_text="hi")
    []
    """
    stream = np.asarray(ids, dtype=np.int64)
    check_vocabulary(stream, tokenizer.vocab_size, where="ids to audit")
    return [
        *_vocabulary(tokenizer, stream),
        *_bytes(tokenizer, stream, claimed_bytes, raw_text),
        *_targets(len(stream) - 1, scored_targets, expected_targets),
    ]


def _failure(code: str, *, expected: int, found: int, message: str) -> ByteFailure:
    """Report a fault with its remedy."""
    remedy = REMEDIES[code]
    return ByteFailure(code=code, expected=expected, found=found, message=message, remedy=remedy)


def _vocabulary(tokenizer: Tokenizer, ids: NDArray[np.int64]) -> Iterator[ByteFailure]:
    """Failures 3 and 7: a space spelled as U+2581's bytes, and documents that nothing finds."""
    table = tokenizer.token_bytes
    alone = np.array([raw == b" " for raw in table], dtype=bool) & ~tokenizer.byte_fallback
    if tokenizer.kind != "bytes" and not alone.any():
        spelled = b"".join(table[token] for token in ids).count(SPACE_MARK.encode())
        message = (
            "the vocabulary has no piece for a space alone, so such a space becomes three byte "
            f"tokens of three bytes in all; {spelled} occur here"
        )
        yield _failure("no_space_piece", expected=1, found=0, message=message)
    if not (ids == tokenizer.bos).any():
        message = f"id {tokenizer.bos}, which begins a document, never occurs"
        yield _failure("no_document_boundary", expected=1, found=0, message=message)


def _bytes(
    tokenizer: Tokenizer, ids: NDArray[np.int64], claimed: int | None, raw_text: str | None
) -> Iterator[ByteFailure]:
    """Failures 1, 2 and 4: what was divided by, against the text."""
    targets, previous = ids[1:], ids[:-1]
    truth = int(tokenizer.byte_counts(targets, previous).sum())
    raw = None if raw_text is None else len(raw_text.encode("utf-8"))
    whole = truth + int(tokenizer.byte_counts(ids[:1], [tokenizer.bos]).sum())
    if raw is not None and raw != whole and claimed != raw:
        message = (
            f"the tokens spell {whole} bytes, the original text has {raw}: it was changed before "
            "or while it was tokenised"
        )
        yield _failure("transformed_text", expected=raw, found=whole, message=message)
    if claimed is None or claimed in (truth, raw):
        return
    above = claimed - truth
    known = (code for code, wrong in _signatures(tokenizer, targets, previous) if wrong == above)
    code = next(known, "wrong_byte_count")
    message = (
        f"the claim differs from the text by {above} bytes ({above / max(truth, 1):+.2%}): "
        f"{CAUSES[code]}"
    )
    yield _failure(code, expected=truth, found=claimed, message=message)


def _signatures(
    tokenizer: Tokenizer, targets: NDArray[np.int64], previous: NDArray[np.int64]
) -> Iterator[tuple[str, int]]:
    """Yield by how many bytes, if any, each known fault would raise the count."""
    led = tokenizer.space_led[targets]
    shown = [len(raw.decode("utf-8", "replace").encode()) for raw in tokenizer.token_bytes]
    signatures = (
        ("double_counted_space", (led & ~tokenizer.boundary[previous]).sum()),
        ("double_counted_space", led.sum()),
        ("byte_token_as_three", (np.array(shown) - tokenizer.sizes)[targets].sum()),
        ("byte_token_as_three", 2 * tokenizer.byte_fallback[targets].sum()),
    )
    yield from ((code, int(wrong)) for code, wrong in signatures if wrong > 0)


def _targets(
    available: int, scored: int | NDArray[np.integer] | None, expected: int | None
) -> Iterator[ByteFailure]:
    """Failures 5 and 6: every target once, and as many as the split is known to have."""
    if isinstance(scored, np.ndarray):
        number, distinct = scored.size, len(np.unique(scored))
    else:
        number = available if scored is None else scored
        distinct = min(number, available)
    if number > distinct:
        message = f"{number} targets were scored, {number - distinct} of them again"
        yield _failure("targets_scored_twice", expected=distinct, found=number, message=message)
    # A bare count above the split proves duplicates, but not which targets were left out.
    known = number <= available or distinct < available
    if expected is not None and (distinct < expected or (known and distinct != expected)):
        message = f"{distinct} targets stand where the split is known to have {expected}"
        yield _failure(
            "wrong_validation_length", expected=expected, found=distinct, message=message
        )
