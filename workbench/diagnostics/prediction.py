"""Sets of predictions, chosen by meaning: what one wants to know the reason of."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.diagnostics.branch import BranchStates, states_at
from workbench.diagnostics.sample import Sample
from workbench.folder import InputError
from workbench.text import IGNORED, TOKEN_CLASSES, Tokenizer, class_scheme, classify
from workbench.text.context_gate import branches
from workbench.text.world import Record, completion_ids, prompt_ids

RECORDS = 512  # predictions of running text whose margins are split
EARLIEST = 16  # tokens of context before a prediction counts as one made from context
TYPED = "typed prompt"
ARRAYS, TUPLES = ("hidden", "scores", "target", "predicted"), ("records", "contexts")


def chosen_states(
    sample: Sample,
    *,
    profile: str = "",
    confusion: tuple[str, str] | None = None,
    offsets: ArrayLike | None = None,
    prompt: str = "",
    target: str = "",
) -> BranchStates:
    """Run the model where a set of predictions is made; without a choice, on `sample_states`.

    Parameters
    ----------
    sample : Sample
    profile : str, optional
        The failed records of this profile; on running text, of this class of target.
    confusion : (target, predicted), optional
        Where the first token was due and the second predicted, as texts or pieces; of an empty
        one, the commonest.
    offsets : array of int, optional
        Targets by their offset in the validation split, as another panel hands them over.
    prompt, target : str, optional
        A typed prompt and the word that should follow; without one the model's answer stands for
        it, and is compared with its runner-up.

    Returns
    -------
    BranchStates
        At most `RECORDS` of running text, drawn with a fixed seed.

    Raises
    ------
    InputError
        If the set is empty or a token is unknown.
    """
    if confusion is not None:
        offsets = _confused(sample, *confusion)
    if prompt:
        states = _typed(sample, prompt, target)
    elif offsets is not None:
        states = token_states(sample, offsets)
    else:
        states = sample_states(sample)
    if profile:
        failed = (states.predicted != states.target) & (np.array(states.profile) == profile)
        kept: dict[str, Any] = {name: getattr(states, name)[failed] for name in ARRAYS}
        kept |= {name: tuple(compress(getattr(states, name), failed)) for name in TUPLES}
        states = replace(states, **kept)
    if not states.records:
        remedy = "Choose another set."
        raise InputError("predictions", expected="one or more", found="none", remedy=remedy)
    return states


def sample_states(sample: Sample) -> BranchStates:
    """Take the records of a world's profiles at their branch, or predictions of running text."""
    world, tokenizer, length = sample.data.corpus.world, sample.tokenizer, sample.sequence_length
    if world is None:
        return text_states(sample)
    found = [branches(group, tokenizer, context_length=length) for group in world.profiles.values()]
    records = [record for each in found for record in each.records]
    contexts = [context for each in found for context in each.contexts]
    return _run(sample, records, contexts, np.concatenate([each.targets for each in found]))


def text_states(sample: Sample, *, n_record: int = RECORDS) -> BranchStates:
    """Take predictions spread over the validation text; their profile is the target's class."""
    late = min(EARLIEST, sample.sequence_length - 1)
    return token_states(sample, sample.cut.offsets[:, late:], n_record=n_record)


def token_states(sample: Sample, offsets: ArrayLike, *, n_record: int = RECORDS) -> BranchStates:
    """Take the predictions of targets at `offsets` of the validation split, or a draw of them."""
    tokenizer, cut = sample.tokenizer, sample.cut
    eligible = np.argwhere((cut.targets != IGNORED) & np.isin(cut.offsets, offsets))
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(eligible), size=min(n_record, len(eligible)), replace=False)
    at = eligible[np.sort(chosen)]
    contexts = [cut.inputs[row, : position + 1].tolist() for row, position in at]
    targets = cut.targets[*at.T]
    kinds = classify(class_scheme(tokenizer), targets, cut.inputs[*at.T])
    groups = sample.data.validation.group_of(cut.offsets[*at.T])
    records = [
        Record(
            id="row {} position {}".format(*at[n]),
            prompt=tokenizer.decode(contexts[n][-24:]),
            target=tokenizer.pieces[targets[n]],
            profile=TOKEN_CLASSES[kinds[n]],
            source="text:validation",
            fact=f"document {groups[n]}",
        )
        for n in range(len(at))
    ]
    return _run(sample, records, contexts, targets)


def _run(
    sample: Sample,
    records: Sequence[Record],
    contexts: Sequence[Sequence[int]],
    targets: NDArray[np.int64],
) -> BranchStates:
    """Run the model on contexts."""
    pieces = sample.tokenizer.pieces
    return states_at(
        sample.model, records=records, contexts=contexts, targets=targets, pieces=pieces
    )


def _typed(sample: Sample, prompt: str, target: str) -> BranchStates:
    """Take the prediction after a typed prompt."""
    word = f" {target.strip()}"
    record = Record(id=TYPED, prompt=prompt, target=word, profile=TYPED, source="typed")
    answer = completion_ids(record, sample.tokenizer)[:1]
    context = prompt_ids(record, sample.tokenizer)[-sample.sequence_length :]
    states = _run(sample, [record], [context], np.array(answer, dtype=np.int64))
    return states if target else replace(states, target=states.predicted)


def _confused(sample: Sample, target: str, predicted: str) -> NDArray[np.int64]:
    """Find the offsets of a confusion in the token table, whose rows are the scored of `cut`."""
    offsets = sample.cut.offsets[sample.cut.targets != IGNORED]
    due, given = (sample.table[name].values[: len(offsets)] for name in ("id", "top1"))
    wrong = due != given
    for text, ids in ((target, due), (predicted, given)):
        wrong &= (ids == _id(sample.tokenizer, text)) if text else True
    pairs = list(zip(due[wrong].tolist(), given[wrong].tolist(), strict=True))
    common = Counter(pairs).most_common(1)
    kept = np.array([pair == common[0][0] for pair in pairs], dtype=bool)
    found: NDArray[np.int64] = offsets[wrong][kept]
    return found


def _id(tokenizer: Tokenizer, text: str) -> int:
    """Find a token by its piece or by the text it stands for."""
    known = {raw.decode(errors="replace"): i for i, raw in enumerate(tokenizer.token_bytes)}
    known |= {piece: i for i, piece in enumerate(tokenizer.pieces)}
    if text not in known:
        remedy = "Write it as the figures show it, its leading space included."
        raise InputError("token", expected="one of the model", found=repr(text), remedy=remedy)
    return known[text]
