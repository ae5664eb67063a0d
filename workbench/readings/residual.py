"""What the measures of the stream say."""

import numpy as np
import xarray as xr

from workbench.readings.notation import with_error
from workbench.readings.phrasing import capital, gaps, listed

IDLE = 0.01  # a write this small beside its stream
DEAD = 0.05  # of the hidden units of a visit
SATURATED = 0.01  # of the positions with a logit near the cap
CAPPED = ("", "_standard_error")  # absent where the network has no softcap
MASSIVE, ABOVE = 100, 1000  # magnitude, and how many times the median of its token


def residual(ds: xr.Dataset) -> str:
    """Name the smallest write, and what stands out: dead units, massive activations, the softcap.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    cells = ds.stack(site=("visit", "role"))
    share = cells.write_share.values
    writes = cells.role.values != "residual_in"
    if not np.isfinite(share).any():
        return f"Not able to judge: none of {writes.sum()} writes was measured."
    least = cells.isel(site=int(np.nanargmin(share)))
    part, error = str(least.role.item()).replace("_", " "), float(least.write_share_standard_error)
    said = (
        f"{capital(part)} at visit {least.visit.item()} writes least: "
        f"{with_error(100 * float(least.write_share), 100 * error)} per cent of the stream it is "
        f"added to (+- standard error), against a median of {np.nanmedian(share):.0%}"
        f"{'; ablate it' if np.nanmin(share) < IDLE else ''}"
        f"{gaps(share[writes], 'sites')}."
    )
    dead = [f"{at} ({d:.0%})" for at, d in enumerate(ds.dead_share.values) if d > DEAD]
    massive = ((cells.peak > MASSIVE) & (cells.peak_ratio > ABOVE)).values
    top = cells.isel(site=int(np.where(massive, cells.peak_ratio.values, 0).argmax()))
    capped, unsure = (float(ds.get(f"softcap_token_share{end}", np.nan)) for end in CAPPED)
    notes = {
        f"{listed('visit', dead)} with hidden units that none of {ds.attrs['tokens']:,} tokens "
        "activates": bool(dead),
        f"a massive activation in channel {top.peak_channel:.0f} of {top.role.item()} at visit "
        f"{top.visit.item()}, {top.peak_ratio:,.0f} times the median of its token (position "
        f"{top.peak_position:.0f}; at 0 that is usual), the largest of {massive.sum()} of "
        f"{massive.size} sites": massive.any(),
        f"{with_error(100 * capped, 100 * unsure)} per cent of positions with a logit beyond 0.9 "
        "of the softcap": capped > SATURATED,
    }
    found = [note for note, holds in notes.items() if holds]
    return f"{said} Also: {'; '.join(found)}." if found else said
