"""The margin of a winning token over a rival, in parts, and what the win rests on.

With ``mu`` a mean hidden state, ``b + w . h`` is ``b`` (bias), ``w . mu`` (prior) and
``w . (h - mu)`` (context); see `workbench.diagnostics.logit_prior`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.diagnostics.branch import Head, predicted_ids

RIVALS = ("target", "runner_up")


@dataclass(frozen=True, kw_only=True)
class Split:
    """The margin of each winner over its rival [nat]; ``margin = bias + prior + context``."""

    margin: NDArray[np.float64]
    bias: NDArray[np.float64]
    prior: NDArray[np.float64]
    context: NDArray[np.float64]


def rival_ids(
    scores: NDArray[np.float64],
    *,
    target: NDArray[np.int64],
    winner: NDArray[np.int64],
    place: NDArray[np.int64],
    rival: str = "target",
) -> NDArray[np.int64]:
    """Choose whom each winner is compared with; see `logit_prior`."""
    without = scores.copy()
    without[np.arange(len(winner)), winner] = -np.inf
    runner_up = predicted_ids(without, place)
    if rival == "runner_up":
        return runner_up
    return np.where(winner == target, runner_up, target)


def margin_split(
    hidden: NDArray[np.float64],
    head: Head,
    *,
    mu: NDArray[np.float64],
    winner: NDArray[np.int64],
    rival: NDArray[np.int64],
) -> Split:
    """Split margins before the softcap.

    Parameters
    ----------
    hidden : (record, channel) float64
        States at the branch.
    head : Head
        Output weight and bias.
    mu : (channel,) float64
        Mean hidden state of the reference text.
    winner, rival : (record,) int64
        Ids that are compared.
    """
    direction = head.weight[winner] - head.weight[rival]  # (record, channel)
    bias = head.bias[winner] - head.bias[rival]
    return Split(
        margin=(direction * hidden).sum(axis=1) + bias,
        bias=bias,
        prior=direction @ mu,
        context=(direction * (hidden - mu)).sum(axis=1),
    )


def verdicts(
    scores: NDArray[np.float64],
    head: Head,
    *,
    mu: NDArray[np.float64],
    winner: NDArray[np.int64],
    place: NDArray[np.int64],
) -> NDArray[np.str_]:
    """Say what each winner rests on, by who wins without it; see `logit_prior`.

    Returns
    -------
    (record,) str
        ``context``, ``bias``, ``prior``, ``both`` or ``joint``.
    """
    prior = head.weight @ mu  # (vocabulary,)

    def still_wins(removed: NDArray[np.float64]) -> NDArray[np.bool_]:
        return predicted_ids(scores - removed, place) == winner

    no_bias, no_prior = still_wins(head.bias), still_wins(prior)
    names: NDArray[np.str_] = np.select(
        [
            still_wins(head.bias + prior),
            no_prior & ~no_bias,
            no_bias & ~no_prior,
            no_bias & no_prior,
        ],
        [np.array(name) for name in ("context", "bias", "prior", "both")],
        default=np.array("joint"),
    )
    return names
