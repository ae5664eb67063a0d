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
ENOUGH = 5  # failed records from which something can be told
MOST = 0.5  # share of the failed records that a probe must recover to say that the answer is there
SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How many records a probe that never saw them answers right."""

    asked: int = 0  # records whose target other records have too
    right: int = 0
    p_value: float = (
        np.nan
    )  # of `right` when targets are dealt at random; NaN where nothing was asked

    @property
    def verdict(self) -> str:
        """``found`` (most of them, and more than by chance), ``lost`` or ``unjudged``."""
        if self.asked < ENOUGH:
            return "unjudged"
        found = self.right >= MOST * self.asked and self.p_value <= SIGNIFICANT
        return "found" if found else "lost"


def probe(
    features: NDArray[np.float64],
    target: NDArray[np.int64],
    *,
    asked: NDArray[np.bool_] | None = None,
    n_permutation: int = 99,
    seed: int = 0,
) -> Probe:
    """Classify every record by ridge regression on all the others, in closed form.

    Parameters
    ----------
    features : (record, channel) float64
        Of one profile.
    target : (record,) int64
        Right ids. One that a single record has cannot be learned from others: not asked.
    asked : (record,) bool, optional
        Records that are counted, such as those that a model fails; by default all.
    n_permutation : int
        Random dealings of the targets behind `p_value`.
    seed : int
        Of the dealings.

    Returns
    -------
    Probe
        Depends neither on the scale of the features nor on a constant added to them.

    References
    ----------
    Leave-one-out residuals of a linear smoother: Hastie et al., The Elements of Statistical
    Learning, 2009, section 7.10.
    """
    _, number, size = np.unique(target, return_inverse=True, return_counts=True)
    judged = (size[number] > 1) & (True if asked is None else asked)
    if not judged.any() or len(size) < 2:
        return Probe()
    centred = features - features.mean(axis=0)
    kernel = centred @ centred.T
    penalty = RIDGE * max(np.trace(kernel) / len(kernel), np.finfo(float).tiny)
    smoother = 1 / len(kernel) + np.linalg.solve(kernel + penalty * np.eye(len(kernel)), kernel).T
    own = np.diag(smoother)[:, None]
    rng = np.random.default_rng(seed)
    dealt = [number, *(rng.permutation(number) for _ in range(n_permutation))]
    rights = []
    for labels in dealt:
        member = np.eye(len(size))[labels]
        without = (smoother @ member - own * member) / (1 - own)
        rights.append(int((without.argmax(axis=1) == labels)[judged].sum()))
    as_good = np.mean(np.array(rights) >= rights[0])
    return Probe(asked=int(judged.sum()), right=rights[0], p_value=float(as_good))


def localised(hidden: Probe, given: Probe) -> str:
    """Say which part is at fault for the failed records that two probes were asked about.

    Parameters
    ----------
    hidden, given : Probe
        On the final hidden state, and on the embeddings of the prompt.

    Returns
    -------
    str
        ``head``: the answer is in the hidden state; ``trunk``: it is in the prompt only;
        ``context``: in neither; ``unjudged``.
    """
    if hidden.verdict == "found":
        return "head"
    if "unjudged" in (hidden.verdict, given.verdict):
        return "unjudged"
    return "trunk" if given.verdict == "found" else "context"


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
