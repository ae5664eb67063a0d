"""Catch wrong byte counts by name: the seven ways in which bits per byte came out too low.

Bits per byte is nats over bytes, so a denominator that is too large makes a model look better.
Each known fault leaves a signature that can be computed: a claim that exceeds the truth by
exactly one byte a space-led token was counted twice there, and so on.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.text.shards import check_vocabulary
from workbench.text.vocabulary import SPACE_MARK, Tokenizer


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
    found = [
        _space_piece(tokenizer, stream),
        _document_boundary(tokenizer, stream),
        *_bytes(tokenizer, stream, claimed_bytes, raw_text),
        *_targets(len(stream) - 1, scored_targets, expected_targets),
    ]
    return [failure for failure in found if failure is not None]


def _space_piece(tokenizer: Tokenizer, ids: NDArray[np.int64]) -> ByteFailure | None:
    """Failure 3: without a piece for a lone space, SentencePiece spells it as U+2581's bytes."""
    if tokenizer.kind == "bytes":
        return None
    spaces = [
        token
        for token, raw in enumerate(tokenizer.token_bytes)
        if raw == b" " and not tokenizer.byte_fallback[token]
    ]
    if spaces:
        return None
    spelled = b"".join(tokenizer.token_bytes[token] for token in ids).count(SPACE_MARK.encode())
    return ByteFailure(
        code="no_space_piece",
        expected=1,
        found=0,
        message="the vocabulary has no piece for a space alone, so such a space becomes three "
        f"byte tokens of three bytes in all; {spelled} occur here",
        remedy="Keep the piece U+2581 in the vocabulary and tokenise the text again.",
    )


def _document_boundary(tokenizer: Tokenizer, ids: NDArray[np.int64]) -> ByteFailure | None:
    """Failure 7: without a mark nothing finds the documents."""
    if bool((ids == tokenizer.bos).any()):
        return None
    return ByteFailure(
        code="no_document_boundary",
        expected=1,
        found=0,
        message=f"id {tokenizer.bos}, which begins a document, never occurs",
        remedy="Put it before every document when writing the tokens.",
    )


def _bytes(
    tokenizer: Tokenizer, ids: NDArray[np.int64], claimed: int | None, raw_text: str | None
) -> list[ByteFailure]:
    """Failures 1, 2 and 4: what was divided by, against the text."""
    targets, previous = ids[1:], ids[:-1]
    truth = int(tokenizer.byte_counts(targets, previous).sum())
    failures = []
    raw = None if raw_text is None else len(raw_text.encode("utf-8"))
    whole = truth + int(tokenizer.byte_counts(ids[:1], [tokenizer.bos]).sum())
    if raw is not None and raw != whole and claimed != raw:
        failures.append(_transformed(raw, whole))
    if claimed is None or claimed in (truth, raw):
        return failures
    for code, wrong, message, remedy in _signatures(tokenizer, targets, previous):
        if claimed == truth + wrong:
            text = f"the claim is {wrong} bytes above the text: {message}"
            wanted = dict(expected=truth, found=claimed)
            return [*failures, ByteFailure(code=code, message=text, remedy=remedy, **wanted)]
    return [*failures, _unexplained(truth, claimed)]


def _transformed(raw: int, whole: int) -> ByteFailure:
    """Report tokens that spell another text than the one they stand for."""
    return ByteFailure(
        code="transformed_text",
        expected=raw,
        found=whole,
        message=f"the tokens spell {whole} bytes, the original text has {raw}: it was changed "
        "before or while it was tokenised",
        remedy="Divide by the bytes of the original text, kept beside the tokens.",
    )


def _unexplained(truth: int, claimed: int) -> ByteFailure:
    """Report a claim that no known fault explains."""
    return ByteFailure(
        code="wrong_byte_count",
        expected=truth,
        found=claimed,
        message=f"the claim differs from the text by {claimed - truth} bytes "
        f"({(claimed / max(truth, 1) - 1):+.2%}), and no known fault explains it",
        remedy="Count with Tokenizer.byte_counts over exactly the targets that were scored.",
    )


def _signatures(
    tokenizer: Tokenizer, targets: NDArray[np.int64], previous: NDArray[np.int64]
) -> list[tuple[str, int, str, str]]:
    """List by how much each known fault would raise the count: code, bytes, cause, remedy."""
    led = tokenizer.space_led[targets]
    inside = int((led & ~tokenizer.boundary[previous]).sum())
    twice = (
        "the space before a word is counted in the table and again in the sum",
        "Add the space in one of the two places only.",
    )
    replaced = (
        "byte tokens are counted as the three bytes of U+FFFD, or of their own decoding",
        "Count one byte for each byte token.",
    )
    naive = np.array(
        [len(raw.decode("utf-8", "replace").encode()) for raw in tokenizer.token_bytes]
    )
    broken = int((naive - tokenizer.sizes)[targets].sum())
    every = 2 * int(tokenizer.byte_fallback[targets].sum())
    found = [("double_counted_space", wrong, *twice) for wrong in (inside, int(led.sum()))]
    found += [("byte_token_as_three", wrong, *replaced) for wrong in (broken, every)]
    return [signature for signature in found if signature[1] > 0]


def _targets(
    available: int, scored: int | NDArray[np.integer] | None, expected: int | None
) -> list[ByteFailure]:
    """Failures 5 and 6: every target once, and as many as the split is known to have."""
    failures = []
    if isinstance(scored, np.ndarray):
        number, distinct = scored.size, len(np.unique(scored))
    else:
        number = available if scored is None else scored
        distinct = min(number, available)
    if number > distinct:
        failures.append(
            ByteFailure(
                code="targets_scored_twice",
                expected=distinct,
                found=number,
                message=f"{number} targets were scored, {number - distinct} of them again",
                remedy="Let each window score only the targets no earlier window scored.",
            )
        )
    # A bare count above the split proves duplicates, but not which targets were left out.
    known = number <= available or distinct < available
    if expected is not None and (distinct < expected or (known and distinct != expected)):
        failures.append(
            ByteFailure(
                code="wrong_validation_length",
                expected=expected,
                found=distinct,
                message=f"{distinct} targets stand where the split is known to have {expected}",
                remedy="Score the whole official split, truncated as its protocol says.",
            )
        )
    return failures
