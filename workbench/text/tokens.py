"""Token ids of a split, and how they are cut into training batches and evaluation windows.

Letters: ``B`` rows of a batch, ``T`` positions of a row.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.folder import InputError

IGNORED = -100  # target of a position that is not scored (torch's ignore_index)

Batch = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The ids of a split and where its documents begin.

    A *packed* split is one stream: rows are cut from it regardless of documents. A split with
    `answers` is a set of records: every document is a row of its own, and only the positions
    marked in `answers` are learned and scored.
    """

    ids: NDArray[np.int32]  # (token,)
    starts: NDArray[np.int64]  # (document,) offset of each document's first token, starts[0] = 0
    answers: NDArray[np.bool_] | None = None  # (token,) targets that count; None: all of them
    groups: NDArray[np.int64] | None = None  # (document,) equal where documents are not independent

    @property
    def n_document(self) -> int:
        """How many documents the split has."""
        return len(self.starts)

    def halves(self, *, least: int = 1) -> tuple["Tokens", "Tokens"]:
        """Deal what moves together to two halves of about equal length.

        A single document is cut in the middle, and so is a packed split of which one half would
        have fewer than `least` tokens.
        """
        moves = np.arange(self.n_document) if self.groups is None else self.groups
        _, group = np.unique(moves, return_inverse=True)
        if group.max() == 0:
            group = np.arange(self.n_document)
        size = np.bincount(group, np.diff(np.append(self.starts, len(self.ids))))
        turn, filled = np.zeros(len(size), dtype=int), [0.0, 0.0]
        for each in np.argsort(-size, kind="stable"):  # the longest first, to the emptier half
            turn[each] = int(filled[1] < filled[0])
            filled[turn[each]] += size[each]
        if min(filled) < least and self.answers is None:
            middle = len(self.ids) // 2
            parts = (self.ids[:middle], self.ids[middle:])
            return tuple(Tokens(ids=ids, starts=np.zeros(1, dtype=np.int64)) for ids in parts)  # type: ignore[return-value]
        return self._only(turn[group] == 0), self._only(turn[group] == 1)

    def _only(self, chosen: NDArray[np.bool_]) -> "Tokens":
        """Return the split of some of the documents."""
        spans = [self.document(int(index)) for index in np.flatnonzero(chosen)]
        ends = np.cumsum([0, *(span.stop - span.start for span in spans)])
        answers, groups = self.answers, self.groups
        return Tokens(
            ids=np.concatenate([self.ids[span] for span in spans]),
            starts=ends[:-1],
            answers=None if answers is None else np.concatenate([answers[s] for s in spans]),
            groups=None if groups is None else groups[chosen],
        )

    def document(self, index: int) -> slice:
        """Return where document `index` lies in `ids`."""
        stop = self.starts[index + 1] if index + 1 < len(self.starts) else len(self.ids)
        return slice(int(self.starts[index]), int(stop))

    def group_of(self, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what moves together, for each offset into `ids`: its group, else its document."""
        documents = self.document_of(offsets)
        return documents if self.groups is None else self.groups[documents]

    def document_of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the document number of each offset into `ids`."""
        return np.searchsorted(self.starts, positions, side="right") - 1


def stream_batches(
    tokens: Tokens,
    *,
    sequence_length: int,
    tokens_per_step: int,
    micro_batches: int,
    start: int = 0,
) -> Callable[[int], Batch]:
    """Cut a packed split into steps, front to back, for ever.

    Each micro-batch takes one token more than it scores, as the Parameter Golf loader does, so
    that the same shards give the same batches. A step depends on its number and on `start`, the
    token where step 0 begins, alone: continuing a run needs no reader state.

    Returns
    -------
    callable
        ``batch(step) -> (inputs, targets)``, each ``(B, T)`` int64.

    Raises
    ------
    InputError
        If the sizes do not divide, or the split is shorter than one micro-batch.
    """
    unit = sequence_length * micro_batches
    if tokens_per_step % unit:
        wanted = f"a multiple of sequence_length x micro_batches = {unit}"
        found, remedy = str(tokens_per_step), f"Take {max(1, tokens_per_step // unit) * unit}."
        raise InputError("tokens_per_step", expected=wanted, found=found, remedy=remedy)
    local = tokens_per_step // micro_batches
    if len(tokens.ids) < local + 1:
        wanted = f"at least {local + 1} tokens for one micro-batch"
        found = f"{len(tokens.ids)} tokens"
        remedy = "Use a longer corpus, or lower tokens_per_step or sequence_length."
        raise InputError("training split", expected=wanted, found=found, remedy=remedy)
    ids = tokens.ids
    offsets = np.arange(local + 1)

    def batch(step: int) -> Batch:
        first = start + (step * micro_batches + np.arange(micro_batches)) * (local + 1)
        span = ids[(first[:, None] + offsets) % len(ids)].astype(np.int64)
        shape = (-1, sequence_length)
        return span[:, :-1].reshape(shape), span[:, 1:].reshape(shape)

    return batch


def record_batches(
    tokens: Tokens, *, sequence_length: int, tokens_per_step: int, seed: int, start: int = 0
) -> Callable[[int], Batch]:
    """Deal records into steps, one record a row, in a new order each epoch.

    Step 0 begins `start` records into the first epoch.

    Rows are padded on the right with id 0 and `IGNORED` targets; a causal model cannot see them.

    Raises
    ------
    InputError
        If a record is longer than `sequence_length`.
    """
    inputs, targets = rows(tokens, sequence_length)
    per_step = max(1, tokens_per_step // sequence_length)
    n_record = len(inputs)

    def batch(step: int) -> Batch:
        drawn = start + np.arange(step * per_step, (step + 1) * per_step)
        chosen = np.empty(per_step, dtype=np.int64)
        for epoch in np.unique(drawn // n_record):
            order = np.random.default_rng([seed, int(epoch)]).permutation(n_record)
            of_epoch = drawn // n_record == epoch
            chosen[of_epoch] = order[drawn[of_epoch] % n_record]
        return inputs[chosen], targets[chosen]

    return batch


def rows(tokens: Tokens, sequence_length: int) -> Batch:
    """Lay out each document as one padded row: inputs, and targets where they count."""
    lengths = np.diff(np.append(tokens.starts, len(tokens.ids)))
    longest = int(lengths.max()) - 1
    if longest > sequence_length:
        wanted, found = f"at least {longest}, the longest record", str(sequence_length)
        remedy = f"Set sequence_length to {longest} or more."
        raise InputError("sequence_length", expected=wanted, found=found, remedy=remedy)
    inputs = np.zeros((len(lengths), sequence_length), dtype=np.int64)
    targets = np.full_like(inputs, IGNORED)
    for row in range(len(lengths)):
        span = tokens.document(row)
        ids = tokens.ids[span]
        inputs[row, : len(ids) - 1] = ids[:-1]
        counted = np.ones(len(ids), bool) if tokens.answers is None else tokens.answers[span]
        targets[row, : len(ids) - 1] = np.where(counted[1:], ids[1:], IGNORED)
    return inputs, targets


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Rows of an evaluation: what goes in, what is scored, and where each target stands."""

    inputs: NDArray[np.int64]  # (B, T)
    targets: NDArray[np.int64]  # (B, T), IGNORED where nothing is scored
    offsets: NDArray[np.int64]  # (B, T) offset of the target in the split's ids
    present: NDArray[np.bool_]  # (B, T) False where a short row is padded


def windows(
    tokens: Tokens,
    *,
    sequence_length: int,
    stride: int | None = None,
    limit: int | None = None,
    batch: int = 16,
) -> Iterator[Windows]:
    """Cut a split into evaluation rows; every counted target is scored exactly once.

    Parameters
    ----------
    tokens : Tokens
        The split. One with `answers` gives one row a record.
    sequence_length : int
        Positions of a row.
    stride : int, optional
        Sliding windows: rows start every `stride` tokens and only new targets are scored. By
        default rows do not overlap and the remainder that fills no row is dropped.
    limit : int, optional
        Score this many tokens at most, but one row at least: the first rows only.
    batch : int
        Rows in one yield.

    Raises
    ------
    InputError
        If the split is too short for one row.
    """
    if tokens.answers is not None:
        yield from _record_windows(tokens, sequence_length, limit, batch)
        return
    n_target = len(tokens.ids) - 1
    if n_target < sequence_length:
        wanted, found = f"at least {sequence_length + 1} tokens", f"{len(tokens.ids)} tokens"
        remedy = "Use a longer validation text or a shorter sequence_length."
        raise InputError("validation split", expected=wanted, found=found, remedy=remedy)
    step = stride or sequence_length
    if not 0 < step <= sequence_length:
        wanted = f"1 to sequence_length {sequence_length}"
        remedy = "Use protocol 'full' or a smaller stride."
        raise InputError("stride", expected=wanted, found=str(step), remedy=remedy)
    first = np.arange(0, n_target - sequence_length + 1, step)
    if stride is not None and first[-1] + sequence_length < n_target:
        first = np.append(first, n_target - sequence_length)  # the tail, scored once
    if limit is not None:
        first = first[: max(1, 1 + (limit - sequence_length) // step)]  # later rows add a step each
    scored = 0  # targets before this offset are done
    for part in range(0, len(first), batch):
        starts = first[part : part + batch]
        at = starts[:, None] + np.arange(sequence_length)  # (B, T)
        done = np.concatenate([[scored], starts[:-1] + sequence_length])[:, None]
        targets = np.where(at >= done, tokens.ids[at + 1], IGNORED).astype(np.int64)
        scored = int(starts[-1]) + sequence_length
        yield Windows(
            inputs=tokens.ids[at].astype(np.int64),
            targets=targets,
            offsets=at + 1,
            present=np.ones(at.shape, dtype=bool),
        )


def _record_windows(
    tokens: Tokens, sequence_length: int, limit: int | None, batch: int
) -> Iterator[Windows]:
    """Yield record rows in order."""
    inputs, targets = rows(tokens, sequence_length)
    offsets = tokens.starts[:, None] + 1 + np.arange(sequence_length)
    present = offsets < np.append(tokens.starts, len(tokens.ids))[1:, None]
    if limit is not None:
        needed = np.cumsum((targets != IGNORED).sum(axis=1))
        keep = max(1, int(np.searchsorted(needed, limit, side="right")))
        inputs, targets, offsets = inputs[:keep], targets[:keep], offsets[:keep]
    for part in range(0, len(inputs), batch):
        span = slice(part, part + batch)
        yield Windows(
            inputs=inputs[span], targets=targets[span], offsets=offsets[span], present=present[span]
        )
