"""One or two sentences that say what a result shows, computed from it and never canned.

They are the captions of figures and the summary of ``diagnose``. A reading names where the extreme
is, its number, what it is compared with and what that suggests; it speaks of attribution, not of
cause, and says so where the data cannot carry a judgement.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

LOW_RANK = 0.75  # of the median ratio: below it a matrix stands out
RANDOM_BAND = 0.02  # a ratio this near 1 cannot be told from random weights by eye
IDLE, BYPASS = 0.01, 0.95  # shares of the mixed value that are as good as none and all
FEW_RECORDS = 5
FEW_TOKENS = 200
NEAR_ZERO = 0.1  # of the peak learning rate: a finished warmdown ends below
NO_PLATEAU = 0.93  # of the peak after a tenth of the steps; a cosine is still above


def visible(text: str, *, longest: int = 28) -> str:
    r"""Show a token as a reader or a terminal can take it: whitespace and controls made visible.

    Examples
    --------
    >>> visible("a b\n") == "a\u2423b\u21b5"
    True
    >>> visible("\x1b[31m")
    '\\x1b[31m'
    """
    whole = text if len(text) <= longest else text[: longest - 1]
    shown = printable(whole, marks={" ": "\u2423", "\n": "\u21b5", "\t": "\u21e5"})
    return shown if whole == text else shown + "\u2026"


def printable(text: str, *, marks: Mapping[str, str]) -> str:
    """Replace `marks` by theirs, and what has no glyph (controls, direction) by its escape."""
    return "".join(
        marks.get(each) or (each if each.isprintable() else each.encode("unicode_escape").decode())
        for each in text
    )


def reading(name: str, ds: xr.Dataset) -> str:
    """Say what the result of the diagnostic `name` shows.

    Raises
    ------
    KeyError
        If there is no reading of that name.
    """
    return {
        "self_test": self_test,
        "effective_rank": effective_rank,
        "value_residual": value_residual,
        "logit_prior": logit_prior,
        "routing_audit": routing_audit,
        "token_loss": token_loss,
    }[name](ds)


def self_test(ds: xr.Dataset) -> str:
    """Say whether every self-test passed, and name those that did not with their numbers.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    passed = ds.passed.values.astype(bool)
    if passed.all():
        return f"All {passed.size} self-tests passed."
    failed = [
        f"{name} ({value:.3g}, at most {limit:.3g})"
        for name, value, limit, good in zip(
            ds.check.values, ds.value.values, ds.limit.values, passed, strict=True
        )
        if not good
    ]
    return (
        f"{len(failed)} of {passed.size} self-tests failed, so no number here can be trusted "
        f"yet: {', '.join(failed)}."
    )


def effective_rank(ds: xr.Dataset) -> str:
    """Name the matrix that uses the fewest directions for its shape, or say that none stands out.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name; the last step is read.
    """
    last = ds.isel(step=-1) if "step" in ds.dims else ds
    ratio = last.effective_rank_ratio.values.astype(float)
    judged = np.isfinite(ratio)
    if not judged.any():
        return f"Not able to judge: no finite effective rank among {ratio.size} matrices."
    gaps = f" ({int((~judged).sum())} of {ratio.size} not judged)" if not judged.all() else ""
    median = float(np.median(ratio[judged]))
    lowest, highest = int(np.nanargmin(ratio)), int(np.nanargmax(ratio))
    names = [_matrix_name(last.isel(matrix=index)) for index in range(ratio.size)]
    if np.abs(ratio[judged] - 1).max() <= RANDOM_BAND:
        return (
            f"All {int(judged.sum())} matrices are within {RANDOM_BAND:.0%} of random weights of "
            f"their shape: their spectra show no trace of training{gaps}."
        )
    if ratio[lowest] >= LOW_RANK * median:
        return (
            f"No matrix stands out: the ratio to random weights runs from {ratio[lowest]:.2f} "
            f"({names[lowest]}) to {ratio[highest]:.2f} ({names[highest]}), "
            f"median {median:.2f}{gaps}."
        )
    standing = np.flatnonzero(judged & (ratio < LOW_RANK * median))
    rank = float(last.effective_rank.values[lowest])
    others = f", the lowest of {standing.size} that stand out" if standing.size > 1 else ""
    return (
        f"{_capital(names[lowest])} has effective rank {rank:.1f}, {ratio[lowest]:.2f} of random "
        f"weights of its shape, against a median of {median:.2f} over all matrices{others}. Few "
        f"directions carry it: look at its training (learning rate, frozen or truncated weights) "
        f"before calling it compressible{gaps}."
    )


def _matrix_name(point: xr.Dataset) -> str:
    """Say which matrix in words: ``block 3 value``, ``embedding``."""
    role = str(point.role.item()).replace("_", " ")
    block = int(point.block.item())
    return role if block < 0 else f"block {block} {role}"


def value_residual(ds: xr.Dataset) -> str:
    """Name the visits where the earlier value counts most, is idle, or takes over.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name; the last step is read.
    """
    last = ds.isel(step=-1) if "step" in ds.dims else ds
    share = last.contribution_share.values.astype(float)
    alpha = last.alpha_effective.values.astype(float)
    judged = np.flatnonzero(np.isfinite(share))
    if not judged.size:
        return "Not able to judge: no visit has a measured share of an earlier value."
    names = last.visit.values if "visit" in last.coords else np.arange(share.size)
    most, least = judged[np.argmax(share[judged])], judged[np.argmin(share[judged])]
    first = (
        f"The earlier value is {share[most]:.0%} of the mixed value at visit {names[most]} "
        f"(mix {alpha[most]:+.2f})"
    )
    if judged.size > 1:
        first += f" and {share[least]:.0%} at visit {names[least]} (mix {alpha[least]:+.2f})"
    idle, bypass = judged[share[judged] < IDLE], judged[share[judged] > BYPASS]
    notes = []
    if idle.size:
        notes.append(f"{_listed('visit', names[idle])} under {IDLE:.0%}, as good as unused")
    if bypass.size:
        notes.append(f"{_listed('visit', names[bypass])} over {BYPASS:.0%}, its own value bypassed")
    negative = judged[alpha[judged] < 0]
    if negative.size:
        notes.append(f"{_listed('visit', names[negative])} subtracting the earlier value")
    second = f"{_capital('; '.join(notes))}." if notes else "Every visit blends the two."
    return f"{first}. {second}"


def logit_prior(ds: xr.Dataset) -> str:
    """Count what the winners rest on, and name the wrong one that owes most to bias and prior.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    count = ds.sizes["record"]
    verdicts = Counter(str(each) for each in ds.verdict.values)
    told = ", ".join(f"{name} {n}" for name, n in verdicts.most_common())
    margin = ds.margin.values.astype(float)
    if count < FEW_RECORDS or not np.isfinite(margin).all():
        why = f"only {count} records" if count < FEW_RECORDS else "margins that are not finite"
        return f"Not able to judge from {why}; verdicts so far: {told or 'none'}."
    alone = ds.verdict.values == "context"
    reference = f" over {ds.attrs['reference']}" if "reference" in ds.attrs else ""
    first = (
        f"{int(alone.sum())} of {count} winners ({alone.mean():.0%}) win on their context alone; "
        f"the rest need the output bias or the mean hidden state{reference} ({told})"
    )
    if alone.all():
        mean = float(ds.context.mean(skipna=False))
        return (
            f"All {count} winners win on their context alone, without output bias and mean hidden "
            f"state{reference}; context supplies {mean:.2f} of a mean margin of "
            f"{margin.mean():.2f} nat."
        )
    needy = ~alone
    if "correct" in ds.coords:
        needy &= ~ds.correct.values.astype(bool)
        if not needy.any():
            return f"{first}. None of those is wrong: a prior that follows the text is healthy."
    return f"{first}. {_owing(ds.isel(record=np.flatnonzero(needy)))}"


def _owing(needy: xr.Dataset) -> str:
    """Name the commonest winner of records that context alone does not decide."""
    count = needy.sizes["record"]
    wrong = " and are wrong" if "correct" in needy.coords else ""
    winner, wins = Counter(str(each) for each in needy.winner.values).most_common(1)[0]
    chosen = needy.isel(record=np.flatnonzero(needy.winner.values == winner))
    bias, prior = float(chosen.bias.mean(skipna=False)), float(chosen.prior.mean(skipna=False))
    larger = "bias" if bias >= prior else "prior"
    return (
        f"{count} need them{wrong}, most often '{visible(winner)}' ({wins} times; mean bias "
        f"{bias:+.2f}, prior {prior:+.2f} nat): an attribution to its {larger}, which removing "
        f"the {larger} would test."
    )


def routing_audit(ds: xr.Dataset) -> str:
    """Name the collapsed or worst profile, or say that every profile owns its answers.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    several = np.flatnonzero(judgeable(ds))
    if not several.size:
        return "Not able to judge: no profile has two targets that its contexts can tell apart."
    rows = ds.isel(profile=several)
    owned = rows.owned_coverage.values.astype(float)
    if unmeasured := int((~np.isfinite(owned)).sum()):
        return f"Not able to judge: {unmeasured} of {owned.size} profiles are unmeasured."
    fallen = np.flatnonzero(rows.collapsed.values.astype(bool))
    order = np.lexsort((-rows.dominant_rate.values, owned))
    worst = rows.isel(profile=fallen[np.argsort(owned[fallen])[0]] if fallen.size else order[0])
    name, kept = visible(str(worst.profile.item()), longest=40), float(worst.owned_coverage)
    n_target, n_record = int(worst.target_unique), int(worst.records)
    few = " (few records: a hint at most)" if n_record < FEW_RECORDS else ""
    told = (
        f"owns {round(kept * n_target)} of {n_target} targets "
        f"(accuracy {float(worst.accuracy):.2f} over {n_record} records){_dominant(worst)}"
    )
    cause = f"; the audit's root cause is {str(worst.root_cause.item()).replace('_', ' ')}"
    if fallen.size:
        return (
            f"{fallen.size} of {owned.size} judged profiles collapsed to one answer; profile "
            f"{name} {told}{cause}{few}."
        )
    if owned.min() >= 1:
        return (
            f"All {owned.size} judged profiles own every target; the most one-sided answer is "
            f"given to {float(rows.dominant_rate.max()):.0%} of its profile's records, and the "
            f"lowest accuracy is {float(rows.accuracy.min()):.2f}{few}."
        )
    gap = round((float(worst.target_coverage) - kept) * n_target)
    swapped = f" {gap} more appear only as answers to other records." if gap else ""
    return f"No profile collapsed, but profile {name} {told}{cause}{few}.{swapped}"


def judgeable(ds: xr.Dataset) -> NDArray[np.bool_]:
    """Tell which profiles can be judged: several targets, and contexts that can decide them."""
    several: NDArray[np.bool_] = ds.target_unique.values >= 2
    if "context_gate_passed" in ds:
        several = several & ds.context_gate_passed.values.astype(bool)
    return several


def _dominant(worst: xr.Dataset) -> str:
    """Tell the share of the commonest answer, and the answer where it is known."""
    known = "dominant_token" in worst
    answer = f"'{visible(str(worst.dominant_token.item()))}'" if known else "alike"
    return f" with {float(worst.dominant_rate):.0%} of its records answered {answer}"


def token_loss(ds: xr.Dataset) -> str:
    """Name the class that costs most, and the one that costs most beyond how common it is.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    counts = ds.tokens.values.astype(float)
    rows = ds.isel(token_class=np.flatnonzero(counts >= FEW_TOKENS))
    few = int(((counts > 0) & (counts < FEW_TOKENS)).sum())
    classes = "1 class" if few == 1 else f"{few} classes"
    small = f"; {classes} with under {FEW_TOKENS} tokens not judged" if few else ""
    if not rows.sizes["token_class"] or not np.isfinite(rows.contribution.values).all():
        return f"Not able to judge: no class has {FEW_TOKENS} tokens with a finite loss{small}."
    total = float(ds.contribution.where(ds.tokens > 0, 0.0).sum(skipna=False))
    order = np.argsort(-rows.contribution.values, kind="stable")
    most = rows.isel(token_class=order[0])
    first = (
        f"{_capital(_class(most))} tokens cost most: {float(most.contribution):.3f} of "
        f"{total:.3f} bit/byte{_error(most)}, {float(most.loss_share):.0%} of the loss for "
        f"{float(most.token_share):.0%} of the tokens"
    )
    if order.size > 1:
        first += _tie(most, rows.isel(token_class=order[1]))
    excess = rows.loss_share.values / rows.token_share.values
    dearest = rows.isel(token_class=int(np.argmax(excess)))
    if _class(dearest) == _class(most):
        second = "no class costs more for how common it is"
    else:
        second = (
            f"the dearest for how common they are is {_class(dearest)} "
            f"({float(dearest.loss_share):.1%} of the loss for {float(dearest.token_share):.1%})"
        )
    return f"{first}; {second}{small}."


def _class(point: xr.Dataset) -> str:
    """Return a class's name in words."""
    return str(point.token_class.item()).replace("_", " ")


def _error(point: xr.Dataset) -> str:
    """Tell the standard error where it was measured."""
    error = float(point.get("contribution_standard_error", math.nan))
    return f" (standard error {error:.3f})" if math.isfinite(error) else ""


def _tie(most: xr.Dataset, second: xr.Dataset) -> str:
    """Say so where the first class cannot be told from the second."""
    gap = float(most.contribution) - float(second.contribution)
    errors = [float(each.get("contribution_standard_error", math.nan)) for each in (most, second)]
    if not gap < 2 * math.hypot(*errors):
        return ""
    return f", not separable from {_class(second)} ({float(second.contribution):.3f})"


def training(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Tell where a run ended, and whether its learning rate came down as a warmdown should.

    Parameters
    ----------
    metrics : sequence of mapping
        Lines of ``metrics.jsonl``.
    """
    steps, losses = logged(metrics, "loss")
    if not losses.size:
        return "Not able to judge: no training loss was logged."
    ended = f"After step {steps[-1]:.0f} the training loss is {losses[-1]:.3f} nat/token"
    at, scores = logged(metrics, "validation_bits_per_byte")
    if scores.size:
        ended += f" and validation {scores[-1]:.3f} bit/byte (step {at[-1]:.0f}"
        best = int(scores.argmin())
        is_last = scores[best] == scores[-1]
        ended += ")" if is_last else f"; best {scores[best]:.3f} at step {at[best]:.0f})"
    return f"{ended}. {_schedule(*logged(metrics, 'learning_rate'))}"


def _schedule(steps: np.ndarray[Any, Any], rates: np.ndarray[Any, Any]) -> str:
    """Judge the shape of the learning rate."""
    if rates.size < 10 or rates.max() <= 0:
        return f"Not able to judge the learning rate from {rates.size} logged values."
    peak, final = float(rates.max()), float(rates[-1])
    ratio = final / peak
    if ratio > 0.99:
        return f"The warmdown never fired: the learning rate ended at its peak, {peak:.3g}."
    top = int(np.flatnonzero(rates >= 0.999 * peak)[0])
    span = steps[-1] - steps[top]
    later = rates[np.searchsorted(steps, steps[top] + 0.1 * span)]
    outcome = f"ended at {final:.2g}, {ratio:.0%} of its peak {peak:.3g}"
    if ratio > NEAR_ZERO:
        outcome += ": the warmdown did not finish"
    if later < NO_PLATEAU * peak:
        began = "the first step" if top == 0 else f"step {steps[top]:.0f}, the end of the warmup"
        return f"The warmdown fired from {began}, with no plateau; the learning rate {outcome}."
    last_high = steps[np.flatnonzero(rates >= 0.99 * peak)[-1]]
    return f"The learning rate began to fall after step {last_high:.0f} and {outcome}."


def logged(
    metrics: Sequence[Mapping[str, Any]], name: str
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Take one quantity where it was logged: steps and values."""
    pairs = [
        (line["step"], line[name]) for line in metrics if isinstance(line.get(name), int | float)
    ]
    table = np.asarray(pairs, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _listed(noun: str, items: Any) -> str:
    """List a few items after a noun in the right number: ``visit 3``, ``visits 3, 4``."""
    told = [str(each) for each in items]
    plural = "s" if len(told) > 1 else ""
    more = f" and {len(told) - 6} more" if len(told) > 6 else ""
    return f"{noun}{plural} {', '.join(told[:6])}{more}"


def _capital(text: str) -> str:
    """Begin with a capital."""
    return text[:1].upper() + text[1:]
