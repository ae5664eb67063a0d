"""What the ranks of activations say."""

import numpy as np
import xarray as xr

from workbench.readings.notation import with_error
from workbench.readings.phrasing import gaps

FEW = 10  # vectors a channel: below it the rank is biased low


def activation(ds: xr.Dataset) -> str:
    """Name the site whose activations use the fewest directions for its width.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    cells = ds.stack(site=("visit", "role"))
    ratio = cells.activation_rank_ratio.values
    if not np.isfinite(ratio).any():
        return f"Not able to judge: no finite rank among {ratio.size} sites."
    lowest = cells.isel(site=int(np.nanargmin(ratio)))
    error, width = float(lowest.activation_rank_standard_error), float(lowest.width)
    site = str(lowest.role.item()).replace("_", " ")
    few = f" That is under {FEW} vectors a channel: the rank itself is biased low, the ratio less."
    lost, more = gaps(ratio, "sites"), few if ds.attrs["tokens"] < FEW * width else ""
    return (
        f"Activations of {site} at visit {lowest.visit.item()} use the fewest directions for their "
        f"width: {with_error(lowest.activation_rank, error)} of {width:.0f} (+- standard error), "
        f"{np.nanmin(ratio):.2f} of what chance would on {ds.attrs['tokens']:,} vectors, against a "
        f"median of {np.nanmedian(ratio):.2f} over sites{lost}. A narrower matrix there is worth a "
        f"try, its cost to be measured.{more}"
    )
