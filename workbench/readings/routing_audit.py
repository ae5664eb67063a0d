"""What the routing audit says."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.readings.notation import with_error
from workbench.readings.phrasing import visible

FEW_RECORDS = 5
TELLING = 0.9  # a share of right answers below which a promotion says so first


def routing_audit(ds: xr.Dataset) -> str:
    """Say whether the checkpoint may be promoted, and name the collapsed or worst profile.

    Of two runs (`result.difference`) it names the profile that differs most.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    return _compared(ds) if ds.attrs.get("compared") else promotion(ds) + _answers(ds)


def _answers(ds: xr.Dataset) -> str:
    """Name the collapsed or worst profile, or say that every profile owns its answers."""
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


def promotion(ds: xr.Dataset) -> str:
    """Say whether a checkpoint may be promoted, and where the ladder first stops; "" if unknown.

    Parameters
    ----------
    ds : Dataset
        Result of `routing_audit`.
    """
    if "promote" not in ds.attrs:
        return ""
    judged, first = int((ds.target_unique >= 2).sum()), ds.attrs["first_red"]
    if ds.attrs["promote"]:
        return f"{_lowest(ds)}Promote: none of {judged} profiles has a red check. "
    if not first:
        fell = ds.attrs.get("below_floor", 0)
        why = f"{fell} profiles cover fewer targets than at step 0" if fell else "nothing is judged"
        return f"Do not promote: {why}. "
    names = ds.profile.values[ds.first_red.values == first]
    where, question = "", ds.question.sel(rung=first).item()
    if first == "probe":
        found, n = np.unique(ds.localised.values[ds.first_red.values == first], return_counts=True)
        blamed = ", ".join(f"the {each} in {k}" for each, k in zip(found, n, strict=True))
        where = f"; the probes, which never saw the fact that they are asked, blame {blamed}"
    return (
        f"Do not promote: the first red check is {first} ({question}?), in {len(names)} of "
        f"{judged} profiles, such as {visible(str(names[0]), longest=40)}{where}. "
    )


def _lowest(ds: xr.Dataset) -> str:
    """Name the profile with most wrong answers where they are many; else nothing."""
    recall = ds.get("macro_recall", ds.accuracy)
    lowest = np.fmin(ds.accuracy.values, recall.values)
    lowest = np.where(ds.target_unique.values >= 2, lowest, np.inf)
    at = int(np.nanargmin(lowest))
    if lowest[at] >= TELLING:
        return ""
    return (
        f"Right answers are as few as {float(ds.accuracy[at]):.0%} of records (macro recall "
        f"{float(recall[at]):.2f}), in profile {visible(str(ds.profile.values[at]), longest=40)}. "
    )


def profile_targets(ds: xr.Dataset) -> str:
    """Count the targets that are owned, merely covered, missing, and out of the head's reach.

    Parameters
    ----------
    ds : Dataset
        Result of `routing_audit`.
    """
    asked, right = ds.asked.values, ds.right.values
    n, owned = int((asked > 0).sum()), int((right > 0).sum())
    covered = int(((right == 0) & (ds.answered.values > 0)).sum())
    out = int((ds.target_reachable.values == 0).sum())
    return (
        f"Of {n} targets in {ds.sizes['profile']} profiles {owned} are owned (given to a record "
        f"that asks for them), {covered} merely covered (given only elsewhere) and "
        f"{n - owned - covered} never given; {out} could not win whatever the hidden state."
    )


def checkpoints(ds: xr.Dataset) -> str:
    """Name the checkpoint that owns most, and where coverage fell below that of step 0.

    Parameters
    ----------
    ds : Dataset
        Result of `routing_audit` with its history.
    """
    means = ds.owned_by_step.mean("profile").values
    above = ds.above_floor.values
    best, last = int(means.argmax()), ds.step.values[-1]
    told = (
        f"Step {ds.step.values[best]} owns most: {means[best]:.0%} of the targets, mean of profiles"
    )
    told += ". " if best == len(means) - 1 else f", against {means[-1]:.0%} at step {last}. "
    if not np.isfinite(above).any():
        return told + "No weights of step 0 are kept, so there is no floor to compare with."
    if not (above < 0).any():
        return told + "No profile ever covers fewer targets than at step 0."
    at, worst = np.unravel_index(np.nanargmin(above), above.shape)
    name = visible(str(ds.profile.values[worst]), longest=40)
    return told + (
        f"{int((above[-1] < 0).sum())} profiles end below their floor of step 0; the largest loss "
        f"is {-above[at, worst]:.2f} in {name} at step {ds.step.values[at]}."
    )


def routing_records(ds: xr.Dataset) -> str:
    """Say what the records of one target get.

    Parameters
    ----------
    ds : Dataset
        Result of the function of the same name in `diagnostics`, one target of it.
    """
    right = ds.correct.values.astype(bool)
    others, n = np.unique(ds.winner.values[~right], return_counts=True)
    most = f"; {n.max()} get '{visible(str(others[n.argmax()]))}'" if n.size else ""
    return (
        f"{right.sum()} of {right.size} records of profile "
        f"{visible(str(ds.profile.values[0]), longest=40)} that ask for "
        f"'{visible(str(ds.target.values[0]))}' get it{most}. Its mean rank is "
        f"{float(ds['rank'].mean()):.1f} and its mean probability "
        f"{float(ds.probability.mean()):.3f}; less the best other's {float(ds.lead.mean()):+.3f}."
    )


def judgeable(ds: xr.Dataset) -> NDArray[np.bool_]:
    """Tell which profiles can be judged: several targets, and contexts that can decide them."""
    several: NDArray[np.bool_] = ds.target_unique.values >= 2
    if "context_gate_passed" in ds:
        several = several & ds.context_gate_passed.values.astype(bool)
    return several


def _compared(ds: xr.Dataset) -> str:
    """Name the profile whose accuracy differs most, and whether that exceeds its error."""
    gaps, errors = ds.accuracy.values, ds.accuracy_standard_error.values
    if not np.isfinite(gaps).any():
        return "Not able to judge: the two runs have no profile in common."
    at = int(np.nanargmax(np.abs(gaps)))
    beyond = "beyond" if abs(gaps[at]) > 2 * errors[at] else "within"
    return (
        f"Accuracy differs most in profile {visible(str(ds.profile.values[at]), longest=40)}: "
        f"{with_error(gaps[at], errors[at], sign='+')}, {beyond} twice its standard error (over "
        "facts, as if independent); owned targets there differ by "
        f"{float(ds.owned_coverage[at]):+.2f}. What another seed would change is not in that error."
    )


def _dominant(worst: xr.Dataset) -> str:
    """Tell the share of the commonest answer, and the answer where it is known."""
    known = "dominant_token" in worst
    answer = f"'{visible(str(worst.dominant_token.item()))}'" if known else "alike"
    return f" with {float(worst.dominant_rate):.0%} of its records answered {answer}"
