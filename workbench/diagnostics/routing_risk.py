"""Three further reasons why a profile may be answered wrongly: bias, pressure, imbalance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOP_BIASES = 3
HOTSPOT = 0.5  # share of records with one target from which a profile is lopsided
MOSTLY_BIAS, MOSTLY_HIDDEN = 0.67, 0.33  # bias share that settles what presses on a target


@dataclass(frozen=True, kw_only=True)
class DominantPressure:
    """What lifts the dominant prediction over the targets, on average over the failed rows."""

    rows: int = 0  # failed rows of the profile
    bias_advantage: float = np.nan  # b_dominant - b_target [nat]
    prior_advantage: float = np.nan  # (w_dominant - w_target) . mean hidden state [nat]
    hidden_advantage: float = np.nan  # (w_dominant - w_target) . h [nat], the prior's part included
    bias_share: float = np.nan
    constant_share: float = np.nan  # of bias and prior, which do not depend on the prompt
    pressure: str = "none"


@dataclass(frozen=True, kw_only=True)
class Imbalance:
    """How unevenly the targets of a profile are asked for."""

    top_share: float  # NaN without records
    rare: int  # targets with one record
    hotspot: bool


def bias_share(bias: NDArray[np.float64], hidden: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the bias's part of what is positive in ``bias + hidden``; 0 if neither is.

    Examples
    --------
    >>> bias_share(np.array([3.0, -1.0]), np.array([1.0, 2.0])).tolist()
    [0.75, 0.0]
    """
    up, rest = np.maximum(bias, 0.0), np.maximum(hidden, 0.0)
    share: NDArray[np.float64] = up / np.where(up + rest > 0, up + rest, 1.0)
    return share


def pressure(bias: NDArray[np.float64], hidden: NDArray[np.float64]) -> NDArray[np.str_]:
    """Name what makes each advantage ``bias + hidden``.

    Parameters
    ----------
    bias, hidden : (...) float64
        Parts of an advantage [nat].

    Returns
    -------
    (...) str
        ``output_bias``, ``hidden_projection``, ``mixed_bias_hidden``; ``none`` where there is no
        advantage.
    """
    share = bias_share(bias, hidden)
    conditions = [~(bias + hidden > 0), share >= MOSTLY_BIAS, share <= MOSTLY_HIDDEN]
    names: NDArray[np.str_] = np.select(
        conditions,
        [np.array(name) for name in ("none", "output_bias", "hidden_projection")],
        default=np.array("mixed_bias_hidden"),
    )
    return names


def dominant_pressure(
    scores: NDArray[np.float64],
    bias: NDArray[np.float64],
    *,
    target: NDArray[np.int64],
    predicted: NDArray[np.int64],
    dominant: int,
    prior: NDArray[np.float64] | None = None,
) -> DominantPressure:
    """Split the dominant prediction's advantage over the targets of the failed rows.

    Parameters
    ----------
    scores : (record, vocabulary) float64
        Logits before the softcap [nat].
    bias : (vocabulary,) float64
        Output bias [nat]; zeros where there is none.
    target, predicted : (record,) int64
        Right and given ids.
    dominant : int
        The most frequent prediction.
    prior : (vocabulary,) float64, optional
        Logits of the mean hidden state [nat]; without it only the bias counts as constant.
    """
    failed = np.flatnonzero(predicted != target)
    if not len(failed):
        return DominantPressure()
    missed = target[failed]
    advantage = scores[failed, dominant] - scores[failed, missed]
    of_bias = bias[dominant] - bias[missed]
    mean_bias, mean_hidden = of_bias.mean(), (advantage - of_bias).mean()
    mean_prior = np.nan if prior is None else float((prior[dominant] - prior[missed]).mean())
    constant = mean_bias + np.nan_to_num(mean_prior)
    return DominantPressure(
        rows=len(failed),
        bias_advantage=float(mean_bias),
        prior_advantage=mean_prior,
        hidden_advantage=float(mean_hidden),
        bias_share=float(bias_share(mean_bias, mean_hidden)),
        constant_share=float(bias_share(constant, advantage.mean() - constant)),
        pressure=str(pressure(mean_bias, mean_hidden)),
    )


def escape_risk(
    bias: NDArray[np.float64],
    *,
    dominant: int,
    target: NDArray[np.int64],
    place: NDArray[np.int64],
    share: float,
) -> str:
    """Judge whether the output bias lets a model escape the prompt.

    A high bias is no risk by itself: frequent tokens have one in a healthy model. It is one when
    the dominant prediction takes records that belong to others, and the bias is what lifts it.

    Parameters
    ----------
    bias : (vocabulary,) float64
        Output bias [nat].
    dominant : int
        The most frequent prediction of the profile.
    target : (record,) int64
        The profile's targets.
    place : (vocabulary,) int64
        Order of ids of equal bias; see `workbench.diagnostics.branch.piece_order`.
    share : float
        Bias share of the dominant prediction's wins; NaN when it takes no record from others.

    Returns
    -------
    str
        ``high``: among the top biases and above the targets' mean; ``medium``: only among the top;
        ``low``: otherwise, or when the bias is not what lifts it.
    """
    if not share > MOSTLY_HIDDEN:
        return "low"
    ahead = (bias > bias[dominant]) | ((bias == bias[dominant]) & (place < place[dominant]))
    if int(ahead.sum()) >= TOP_BIASES:
        return "low"
    return "high" if bias[dominant] > bias[np.unique(target)].mean() else "medium"


def imbalance(target: NDArray[np.int64]) -> Imbalance:
    """Measure how unevenly targets are asked for.

    Parameters
    ----------
    target : (record,) int64
        The profile's targets.

    Returns
    -------
    Imbalance
        A hotspot is a target with half of the records or more, unless all have the same number.

    Examples
    --------
    >>> imbalance(np.array([1, 1, 2, 3])).hotspot, imbalance(np.array([1, 1, 2, 2])).hotspot
    (True, False)
    """
    counts: Sequence[int] = np.unique(target, return_counts=True)[1].tolist()
    if not counts:
        return Imbalance(top_share=np.nan, rare=0, hotspot=False)
    share = max(counts) / len(target)
    lopsided = share >= HOTSPOT and len(counts) > 1 and max(counts) > min(counts)
    return Imbalance(top_share=share, rare=counts.count(1), hotspot=lopsided)
