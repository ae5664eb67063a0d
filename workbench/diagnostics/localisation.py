"""Where the answer is lost: a linear probe on what comes in and on what comes out of the trunk.

Letters: ``C`` channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from workbench.model import Network, record

RIDGE = 0.1  # penalty, in units of the features' mean variance over directions
ENOUGH = 5  # failed records, or facts that they are about, from which something can be told
MOST = 0.5  # share of the failed records that a probe must recover to say that the answer is there
SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How many records a probe that never saw their fact answers right."""

    asked: int = 0  # records whose target other facts have too
    facts: int = 0  # that these records are about
    right: int = 0
    p_value: float = np.nan  # of `right` when targets are dealt to facts at random

    @property
    def verdict(self) -> str:
        """``found`` (most of them, and more than by chance), ``lost`` or ``unjudged``."""
        if self.facts < ENOUGH:
            return "unjudged"
        found = self.right >= MOST * self.asked and self.p_value <= SIGNIFICANT
        return "found" if found else "lost"


def probe(
    features: NDArray[np.float64],
    target: NDArray[np.int64],
    *,
    fact: NDArray[np.str_] | None = None,
    asked: NDArray[np.bool_] | None = None,
    n_permutation: int = 99,
    seed: int = 0,
) -> Probe:
    """Classify every record by ridge regression on those of other facts, in closed form.

    Another phrasing of the same fact names the same subject, so a probe that saw it has seen the
    answer. What is found is therefore what facts share, not what was learned of each by heart.

    Parameters
    ----------
    features : (record, channel) float64
        Of one profile.
    target : (record,) int64
        Right ids. One that a single fact has cannot be learned from others: not asked.
    fact : (record,) str, optional
        What each record asks about; records of one fact are left out, and are dealt another
        target, together. By default every record stands alone.
    asked : (record,) bool, optional
        Records that are counted, such as those that a model fails; by default all.
    n_permutation : int
        Random dealings of the targets to facts behind `p_value`.
    seed : int
        Of the dealings.

    Returns
    -------
    Probe
        Empty, so not judged, where fewer than two targets have two facts. Depends neither on the
        scale of the features nor on a constant added to them.

    References
    ----------
    Leave-one-out residuals of a linear smoother: Hastie et al., The Elements of Statistical
    Learning, 2009, section 7.10; here for blocks: ``(I - H_SS)^-1`` times the residuals of S.
    """
    targets, number = np.unique(target, return_inverse=True)
    _, block = np.unique(np.arange(len(target)) if fact is None else fact, return_inverse=True)
    _, first, unit = np.unique(  # a fact with two answers is dealt two
        block * len(targets) + number, return_index=True, return_inverse=True
    )
    due = number[first]
    shared = np.bincount(due, minlength=len(targets)) > 1
    judged = shared[number] & (True if asked is None else asked)
    if not judged.any() or shared.sum() < 2:
        return Probe()
    centred = features - features.mean(axis=0)
    kernel = centred @ centred.T
    penalty = RIDGE * max(np.trace(kernel) / len(kernel), np.finfo(float).tiny)
    smoother = 1 / len(kernel) + np.linalg.solve(kernel + penalty * np.eye(len(kernel)), kernel).T
    same = block[:, None] == block
    mend = np.linalg.inv(np.eye(len(kernel)) - smoother * same)  # every block at once
    rng = np.random.default_rng(seed)
    can = np.flatnonzero(shared[due])
    rights = []
    for dealing in range(1 + n_permutation):
        if dealing:  # the first is as it is
            due[can] = rng.permutation(due[can])
        labels = due[unit]
        member = np.eye(len(targets))[labels]
        without = member - mend @ (member - smoother @ member)
        rights.append(int((without.argmax(axis=1) == labels)[judged].sum()))
    return Probe(
        asked=int(judged.sum()),
        facts=len(np.unique(block[judged])),
        right=rights[0],
        p_value=float(np.mean(np.array(rights) >= rights[0])),
    )


def localised(hidden: Probe, given: Probe) -> str:
    """Say which part is at fault for the failed records that two probes were asked about.

    A probe of the prompt finds only answers that follow a rule across facts. Answers that must be
    known by heart are in the prompt too, which `context_gate` tests; so where both probes find
    nothing, nothing is blamed.

    Parameters
    ----------
    hidden, given : Probe
        On the final hidden state, and on the embeddings of the prompt.

    Returns
    -------
    str
        ``head``: facts share a form of the answer in the hidden state; ``trunk``: in the prompt
        only; ``unjudged``.
    """
    if hidden.verdict == "found":
        return "head"
    return "trunk" if (hidden.verdict, given.verdict) == ("lost", "found") else "unjudged"


def mean_embedding(model: Network, contexts: Sequence[Sequence[int]]) -> NDArray[np.float64] | None:
    """Average what enters the first block over the tokens of each context.

    Parameters
    ----------
    model : Network
        Without the site ``embedding`` there is nothing to average.
    contexts : sequence of sequence of int
        Ids of each record's context.

    Returns
    -------
    (record, C) float64, or None
        A mean a context.
    """
    if "embedding" not in model.sites() or not contexts:
        return None
    used, place = np.unique(np.concatenate(contexts), return_inverse=True)
    ids = torch.as_tensor(used[:, None], device=model.head_weight.device)
    with torch.no_grad(), record(model, ["embedding"]) as seen:
        model(ids)
    table = seen["embedding"][:, 0].double().cpu().numpy()
    rows = np.split(place, np.cumsum([len(each) for each in contexts])[:-1])
    return np.array([table[row].mean(axis=0) for row in rows])
