"""Where a profile must choose between its answers, and whether the context can decide.

The *branch* of a profile is the first token of the completion at which its targets disagree. Before
a wrong answer there is blamed on a model, the gate shows that the tokens the model is given are
enough to tell the answers apart.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.text.tokenizer import Tokenizer
from workbench.text.world import Record, completion_ids, prompt_ids


@dataclass(frozen=True, kw_only=True)
class Branches:
    """The branch of each record of one profile; records that end before it are left out."""

    position: int  # of the branch in the completion, from 0
    kept: NDArray[np.int64]  # (record,) place of each record among those given
    records: tuple[Record, ...]
    contexts: tuple[tuple[int, ...], ...]  # ids before the branch, cut at the left
    targets: NDArray[np.int64]  # (record,) id that should come at the branch
    prompts: tuple[tuple[int, ...], ...]  # ids before the completion, whole
    cut: NDArray[np.int64]  # (record,) tokens lost at the left
    skipped: int


@dataclass(frozen=True, kw_only=True)
class ContextGate:
    """Verdict on the contexts of one profile.

    `covered` records keep every token that tells them from their nearest neighbour with another
    answer. An *ambiguous* context has more than one answer. The gate passes when there are records,
    none is skipped or missing, and no context is ambiguous.
    """

    count: int
    skipped: int
    covered: int
    missing: int
    covered_rate: float  # NaN without records
    unique_contexts: int
    collision_contexts: int  # contexts that more than one record has
    ambiguous_contexts: int
    max_context_reuse: int
    max_target_options: int
    passed: bool


def first_disagreement(completions: Sequence[Sequence[int]]) -> int:
    """Return the first position at which completions disagree; 0 when they never do.

    Examples
    --------
    >>> first_disagreement([[7, 1, 9], [7, 2, 9]])
    1
    """
    longest = max((len(each) for each in completions), default=0)
    for position in range(longest):
        if len({tuple(each[position : position + 1]) for each in completions}) > 1:
            return position
    return 0


def branches(
    records: Sequence[Record],
    tokenizer: Tokenizer,
    *,
    context_length: int,
    branch_position: int | None = None,
) -> Branches:
    """Locate the branch of every record of one profile.

    Parameters
    ----------
    records : sequence of Record
        One profile.
    tokenizer : Tokenizer
        Encodes prompt and completion apart.
    context_length : int
        Tokens that a model is given at most [token]; the last ones are kept.
    branch_position : int, optional
        Position in the completion; by default where the targets first disagree.

    Raises
    ------
    ValueError
        If `context_length` is below 1 or `branch_position` below 0.
    """
    if context_length < 1 or (branch_position is not None and branch_position < 0):
        raise ValueError(
            f"need context_length >= 1 and branch_position >= 0, "
            f"got {context_length} and {branch_position}"
        )
    completions = [completion_ids(record, tokenizer) for record in records]
    position = first_disagreement(completions) if branch_position is None else branch_position
    kept = [index for index, ids in enumerate(completions) if len(ids) > position]
    prompts = [tuple(prompt_ids(records[index], tokenizer)) for index in kept]
    whole = [
        (*prompt, *completions[index][:position])
        for index, prompt in zip(kept, prompts, strict=True)
    ]
    return Branches(
        position=position,
        kept=np.array(kept, dtype=np.int64),
        records=tuple(records[index] for index in kept),
        contexts=tuple(ids[-context_length:] for ids in whole),
        targets=np.array([completions[index][position] for index in kept], dtype=np.int64),
        prompts=tuple(prompts),
        cut=np.array([max(0, len(ids) - context_length) for ids in whole], dtype=np.int64),
        skipped=len(records) - len(kept),
    )


def context_gate(found: Branches) -> ContextGate:
    """Judge whether the contexts of one profile can decide its answers.

    A failed gate says nothing about a model: lengthen the context or mend the records first.

    Parameters
    ----------
    found : Branches
        Of the whole profile; see `branches`.

    Returns
    -------
    ContextGate
        Counts and the verdict; a profile without records does not pass.
    """
    count = len(found.records)
    reuse = Counter(found.contexts)
    options: dict[tuple[int, ...], set[str]] = defaultdict(set)
    for context, record in zip(found.contexts, found.records, strict=True):
        options[context].add(record.target)
    missing = int((_decisive_start(found) < found.cut).sum())
    ambiguous = sum(len(targets) > 1 for targets in options.values())
    return ContextGate(
        count=count,
        skipped=found.skipped,
        covered=count - missing,
        missing=missing,
        covered_rate=(count - missing) / count if count else float("nan"),
        unique_contexts=len(reuse),
        collision_contexts=sum(number > 1 for number in reuse.values()),
        ambiguous_contexts=ambiguous,
        max_context_reuse=max(reuse.values(), default=0),
        max_target_options=max((len(targets) for targets in options.values()), default=0),
        passed=count > 0 and found.skipped == 0 and missing == 0 and ambiguous == 0,
    )


def _decisive_start(found: Branches) -> NDArray[np.int64]:
    """Return where each prompt's decisive span begins: (record,) token position.

    The span is what is left of a prompt after the beginning and the end that it shares with its
    nearest neighbour, the record with another answer from which the fewest tokens tell it.
    """
    lengths = np.array([len(ids) for ids in found.prompts], dtype=np.int64)
    starts = lengths.copy()  # nothing is decisive where nothing disagrees
    if not len(lengths):
        return starts
    forward = np.full((len(lengths), int(lengths.max())), -1, dtype=np.int64)
    backward = forward.copy()
    for row, ids in enumerate(found.prompts):
        forward[row, : len(ids)] = ids
        backward[row, : len(ids)] = ids[::-1]
    targets = np.array([record.target for record in found.records])
    for row in range(len(lengths)):
        other = targets != targets[row]
        if not other.any():
            continue
        shorter = np.minimum(lengths[other], lengths[row])
        prefix = np.minimum(_agreeing(forward[other], forward[row]), shorter)
        suffix = np.minimum(_agreeing(backward[other], backward[row]), shorter - prefix)
        distance = np.maximum(lengths[other], lengths[row]) - prefix - suffix
        starts[row] = prefix[distance == distance.min()].min()
    return starts


def _agreeing(rows: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the leading positions at which each of `rows` equals `row`."""
    count: NDArray[np.int64] = np.cumprod(rows == row, axis=1).sum(axis=1)
    return count
