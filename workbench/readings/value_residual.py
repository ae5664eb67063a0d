"""What the value residual says."""

import numpy as np
import xarray as xr

from workbench.readings.phrasing import capital, listed

IDLE, BYPASS = 0.01, 0.95  # shares of the mixed value that are as good as none and all


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
        notes.append(f"{listed('visit', names[idle])} under {IDLE:.0%}, as good as unused")
    if bypass.size:
        notes.append(f"{listed('visit', names[bypass])} over {BYPASS:.0%}, its own value bypassed")
    negative = judged[alpha[judged] < 0]
    if negative.size:
        notes.append(f"{listed('visit', names[negative])} subtracting the earlier value")
    second = f"{capital('; '.join(notes))}." if notes else "Every visit blends the two."
    return f"{first}. {second}{_cost(last)}"


def _cost(last: xr.Dataset) -> str:
    """Say what the dearest removal costs, where removals were measured."""
    if "ablation_cost" not in last or not np.isfinite(last.ablation_cost.values).any():
        return ""
    cost = last.ablation_cost.values.astype(float)
    at = int(np.nanargmax(cost))
    error = float(last.ablation_standard_error.values[at])
    name = last.visit.values[at] if "visit" in last.coords else at
    return (
        f" Mixing in nothing costs at most {cost[at]:.3f} nat/token (visit {name}, standard error "
        f"{error:.3f}), which overstates what training without it would lose."
    )
