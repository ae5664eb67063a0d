"""What keeping less of bias or prior does."""

import numpy as np
import xarray as xr

from workbench.readings.notation import with_error
from workbench.readings.phrasing import gaps


def shown_setting(ds: xr.Dataset) -> int:
    """Return the setting that is told: attr ``setting``, else the best that keeps less."""
    less = (ds.prior_kept.values < 1) | (ds.bias_kept.values < 1)
    known = less & np.isfinite(ds.change.values)
    return int(ds.attrs.get("setting", np.argmin(np.where(known, ds.change.values, np.inf))))


def damping(ds: xr.Dataset) -> str:
    """Tell what one setting changes, and whether that is certain.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name; attr ``setting`` chooses one, else the best.
    """
    point = ds.isel(setting=shown_setting(ds))
    change, error = float(point.change), float(point.change_standard_error)
    kept = (
        f"{float(point.prior_kept):.0%} of the prior and {float(point.bias_kept):.0%} of the bias"
    )
    lost = gaps(ds.change + ds.change_standard_error, "settings")
    if not np.isfinite(change + error):
        number = f"{change:+.4f} bit/byte with no error" if np.isfinite(change) else "not finite"
        return f"Not able to judge keeping {kept}: the change is {number}{lost}."
    certain = abs(change) > 2 * error
    told = "more than" if certain else "within"
    meaning = "too much is kept" if certain and change < 0 else "no reason to keep less"
    return (
        f"Keeping {kept} {'saves' if change < 0 else 'costs'} {with_error(abs(change), error)} of "
        f"{ds.attrs['bits_per_byte']:.3f} bit/byte (+- paired standard error; "
        f"{told} twice that) and flips {int(point.flips):,} of {ds.attrs['tokens']:,} winners: "
        f"{meaning}{lost}."
    )
