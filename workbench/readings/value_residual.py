"""What the value residual says."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.readings.mixing import differs
from workbench.readings.phrasing import capital, listed

IDLE, BYPASS = 0.01, 0.95  # shares of the mixed value that are as good as none and all
CANCELLED = 0.25  # share of norms that a projection under `IDLE` contradicts
VERDICTS = {
    "flat": "flat: the alpha is free, fix it or remove it",
    "needed": "curved around what was learned: the alpha is needed",
    "elsewhere": "lower elsewhere: the alpha is under-trained, or other text asks for another",
    "unjudged": "not able to judge: differences are within their errors, or the groups too few",
}


def value_residual(ds: xr.Dataset) -> str:
    """Name the visits where the earlier value counts most, is idle, or takes over.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name, or the difference of two; the last step is read.
    """
    last = ds.isel(step=-1) if "step" in ds.dims else ds
    share = last.contribution_share.values.astype(float)
    alpha = last.alpha_effective.values.astype(float)
    judged = np.flatnonzero(np.isfinite(share))
    if not judged.size:
        return "Not able to judge: no visit has a measured share of an earlier value."
    names = last.visit.values if "visit" in last.coords else np.arange(share.size)
    if "compared" in ds.attrs:
        return differs(last, dim="visit", cost="zero_cost")
    most, least = judged[np.argmax(share[judged])], judged[np.argmin(share[judged])]
    first = (
        f"The earlier value is {share[most]:.0%} of the mixed value at visit {names[most]} "
        f"(mix {alpha[most]:+.2f})"
    )
    if judged.size > 1:
        first += f" and {share[least]:.0%} at visit {names[least]} (mix {alpha[least]:+.2f})"
    part = last.contribution.values if "contribution" in last else share
    notes = {
        f"under {IDLE:.0%}, as good as unused": share < IDLE,
        f"over {BYPASS:.0%}, its own value bypassed": share > BYPASS,
        "taken back by its own value (projection near 0)": (share > CANCELLED)
        & (np.abs(part) < IDLE),
        "subtracting the earlier value": alpha < 0,
    }
    told = [
        f"{listed('visit', names[which])} {what}" for what, which in notes.items() if which.any()
    ]
    second = f"{capital('; '.join(told))}." if told else "Every visit blends the two."
    return f"{first}. {second}{_cost(last, names)}"


def _cost(last: xr.Dataset, names: NDArray[Any]) -> str:
    """Say what the dearest removal costs, where removals were judged, and what to do."""
    if "decision" not in last or not np.isfinite(last.zero_cost).any():
        return ""
    at = int(np.nanargmax(last.zero_cost.values))
    cost, error = float(last.zero_cost[at]), float(last.zero_cost_standard_error[at])
    dead = np.where(np.isfinite(last.death), " (dead)", "")
    told = [
        f"visit {names[i]} {last.decision.values[i]}{dead[i]}, "
        f"projection {float(last.contribution[i]):.2f}, cosine {float(last.cosine[i]):.2f}"
        for i in np.flatnonzero(last.decision.values != "")
    ]
    return (
        f" Mixing in nothing costs at most {cost:.4f} +- {error:.4f} bit/byte (visit {names[at]}), "
        f"which overstates what training without it would lose; decision: {'; '.join(told)}."
    )


def alpha_curve(ds: xr.Dataset) -> str:
    """Say whether the loss needs the learned mix of a visit.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    bend, error = float(ds.curvature), float(ds.curvature_standard_error)
    least, ends = float(ds.minimum), [float(ds.setting.min()), float(ds.setting.max())]
    edge = ", the edge of what was tried" if np.isclose(least, ends).any() else ""
    text = (
        f"Visit {ds.attrs['visit']}, learned mix {ds.attrs['learned']:.2f}: the loss is "
        f"{VERDICTS[ds.attrs['verdict']]} (curvature {bend:.2g} +- {error:.1g} bit/byte per square "
        f"of the mix, least at {least:.2f}{edge}; under {ds.attrs['small']} counts as free)"
    )
    for name, what in {"mean_cost": "its mean instead", "asked_cost": "the mix asked for"}.items():
        if name in ds:
            spread = float(ds[f"{name}_standard_error"])
            text += f"; {what} costs {float(ds[name]):+.4f} +- {spread:.4f} bit/byte"
    return f"{text}."
