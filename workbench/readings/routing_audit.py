"""What the routing audit says."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.readings.phrasing import visible

FEW_RECORDS = 5


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
