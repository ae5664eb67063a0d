"""What the measures of the stream say."""

import numpy as np
import xarray as xr

from workbench.readings.phrasing import capital, listed

IDLE = 0.01  # a write this small beside its stream
DEAD = 0.05  # of the hidden units of a visit
SATURATED = 0.01  # of the positions with a logit near the cap
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
    if not np.isfinite(share).any():
        return f"Not able to judge: none of {share.size} writes was measured."
    least = cells.isel(site=int(np.nanargmin(share)))
    part = str(least.role.item()).replace("_", " ")
    said = (
        f"{capital(part)} at visit {least.visit.item()} writes least: "
        f"{float(least.write_share):.1%} of the stream it is added to (standard error "
        f"{float(least.write_share_standard_error):.2%}), against a median of "
        f"{np.nanmedian(share):.0%}{'; ablate it' if np.nanmin(share) < IDLE else ''}."
    )
    dead = [f"{at} ({d:.0%})" for at, d in enumerate(ds.dead_share.values) if d > DEAD]
    top = cells.isel(site=int(np.nanargmax(cells.peak_ratio.values)))
    capped = float(ds.softcap_token_share)
    notes = {
        f"{listed('visit', dead)} with hidden units that none of {ds.attrs['tokens']:,} tokens "
        "activates": bool(dead),
        f"a massive activation in channel {top.peak_channel:.0f} of {top.role.item()} at visit "
        f"{top.visit.item()}, {top.peak_ratio:,.0f} times the median of its token (position "
        f"{top.peak_position:.0f}; at 0 that is usual)": top.peak > MASSIVE
        and top.peak_ratio > ABOVE,
        f"{capped:.1%} of positions with a logit beyond 0.9 of the softcap (standard error "
        f"{float(ds.softcap_token_share_standard_error):.1%})": capped > SATURATED,
    }
    found = [note for note, holds in notes.items() if holds]
    return f"{said} Also: {'; '.join(found)}." if found else said
