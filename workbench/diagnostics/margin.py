"""The margin of a winning token over a rival, in parts, and what the win rests on.

With ``mu`` a mean hidden state, ``b + w . h`` is ``b`` (bias), ``w . mu`` (prior) and
``w . (h - mu)`` (context); see `workbench.diagnostics.logit_prior`.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.diagnostics.branch import Head, predicted_ids
from workbench.folder import InputError
from workbench.result import check, variable

RIVALS = ("target", "runner_up")
PARTS = ("bias", "prior", "context")
FEW, FEW_GROUPS = 12, 5  # records, and independent groups of them, below which nothing is judged
RARE = 0.05  # share of failed predictions up to which there is nothing to mend
DRAWS = 2000  # bootstrap samples


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


def bootstrap_interval(
    values: NDArray[np.float64], group: NDArray[np.generic], *, level: float = 0.95, seed: int = 0
) -> NDArray[np.float64]:
    """Return the percentile interval of means when whole groups are drawn anew.

    Parameters
    ----------
    values : (record, column) float64
    group : (record,)
        Records of one group are one observation.
    level : float
        Share of the drawn means inside.
    seed : int
        Of the draws.

    Returns
    -------
    (2, column) float64
        Low and high; NaN below two groups.

    References
    ----------
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    _, index, size = np.unique(group, return_inverse=True, return_counts=True)
    if len(size) < 2:
        return np.full((2, values.shape[1]), np.nan)
    sums = np.zeros((len(size), values.shape[1]))
    np.add.at(sums, index, values)
    drawn = np.random.default_rng(seed).multinomial(
        len(size), np.full(len(size), 1 / len(size)), size=DRAWS
    )
    means = (drawn @ sums) / (drawn @ size)[:, None]
    interval: NDArray[np.float64] = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return interval


def mean_parts(parts: xr.DataArray) -> xr.Dataset:
    """Average the parts of margins over records, with an interval that draws groups anew.

    Parameters
    ----------
    parts : DataArray with dims ``record, component``
        Parts [nat] that sum to each record's margin; coord `group` by record.

    Returns
    -------
    Dataset
        Dim ``component``: `mean`, `low`, `high` [nat], a 95 % bootstrap interval; attrs
        ``records`` and ``groups``.
    """
    values, group = parts.transpose("record", "component").values, groups_of(parts)
    if not len(values):
        remedy = "Compare runs of the same text and context."
        raise InputError("records", expected="one at least", found="none", remedy=remedy)
    low, high = bootstrap_interval(values, group)
    data = {
        name: variable("component", each, f"{name} part of the margin", "nat")
        for name, each in (("mean", values.mean(axis=0)), ("low", low), ("high", high))
    }
    attrs = {"records": len(values), "groups": len(np.unique(group))}
    return check(xr.Dataset(data, coords={"component": parts["component"]}, attrs=attrs))


def groups_of(ds: xr.Dataset | xr.DataArray) -> NDArray[np.generic]:
    """Return what moves together; an older diagnosis does not say: then each record by itself."""
    groups: NDArray[np.generic] = ds["group" if "group" in ds.coords else "record"].values
    return groups


def what_to_mend(ds: xr.Dataset, damping: xr.Dataset) -> xr.Dataset:
    """Decide between output bias, head and trunk, from what the wrong winners rest on.

    Wrong winners that win on their context alone are the trunk's. Where most need the output bias
    or the prior, that part is to blame only if taking some of it away lowers bits per byte by more
    than twice the standard error: a constant part that says how common tokens are is healthy, and
    what is missing there is context, the trunk's again.

    Parameters
    ----------
    ds : Dataset
        Result of `logit_prior`, rivals being the targets.
    damping : Dataset
        Result of `workbench.diagnostics.damping`, of the same model.

    Returns
    -------
    Dataset
        `mean_parts` of the failed predictions (of all, where none failed). Attrs: ``decision``
        (``bias``, ``head``, ``trunk``, ``nothing to mend``, ``not able to judge``), ``failed`` of
        ``predictions``, ``constant``, the wrong winners that need bias or prior, the interval of
        their share, and ``gain_bias``, ``gain_prior`` [bit/byte], 0 where none is certain.
    """
    wrong = ~ds.correct.values.astype(bool)
    failed, count = int(wrong.sum()), ds.sizes["record"]
    chosen = ds.isel(record=np.flatnonzero(wrong) if failed else slice(None))
    found = mean_parts(chosen[list(PARTS)].to_dataarray("component"))
    needs = (chosen.verdict.values != "context") & (failed > 0)
    low, high = bootstrap_interval(needs[:, None].astype(float), groups_of(chosen))[:, 0]
    gains = {part: _gain(damping, part) for part in ("bias", "prior")}
    to_blame = {part: float(found["mean"].sel(component=part)) for part in gains if gains[part] > 0}
    if count >= FEW and failed <= RARE * count:
        decision = "nothing to mend"
    elif failed < FEW or found.attrs["groups"] < FEW_GROUPS or low <= 0.5 <= high:
        decision = "not able to judge"
    elif low > 0.5 and max(to_blame.values(), default=0) > 0:
        decision = {"bias": "bias", "prior": "head"}[max(to_blame, key=to_blame.__getitem__)]
    else:
        decision = "trunk"
    said = {"decision": decision, "predictions": count, "failed": failed}
    said |= {"constant": int(needs.sum()), "constant_low": low, "constant_high": high}
    return found.assign_attrs(said | {f"gain_{part}": gain for part, gain in gains.items()})


def _gain(damping: xr.Dataset, part: str) -> float:
    """Return the largest fall of bits per byte from keeping less of one part alone, if certain."""
    other = {"bias": "prior", "prior": "bias"}[part]
    alone = damping.isel(setting=np.flatnonzero(damping[f"{other}_kept"].values == 1))
    certain = alone.change.values + 2 * alone.change_standard_error.values < 0
    return float(-alone.change.values[certain].min()) if certain.any() else 0.0
