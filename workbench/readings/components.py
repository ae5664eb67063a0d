"""What the parts of margins say: of one run, or of the difference of two."""

import numpy as np
import xarray as xr

from workbench.readings.notation import with_error
from workbench.readings.phrasing import capital

WIDTH = 3.92  # standard errors in a 95 % interval


def components(ds: xr.Dataset) -> str:
    """Name the part that speaks most for the winners, with its interval and its share.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name, or of `diagnostics.mean_parts`.
    """
    means, low, high = (ds[name].values.astype(float) for name in ("mean", "low", "high"))
    if not np.isfinite(means).all():
        return "Not able to judge from parts that are not finite."
    at = int(np.argmax(np.abs(means)))
    name = str(ds.component.values[at]).replace(".", " ").replace("_", " ")
    number = with_error(means[at], (high[at] - low[at]) / WIDTH, sign="+")
    error = f"+- standard error over {ds.attrs['groups']} groups, " if np.isfinite(low[at]) else ""
    about = f"{name} {number} nat ({error}n {ds.attrs['records']})"
    if ds.attrs.get("compared"):
        clear = "beyond" if low[at] > 0 or high[at] < 0 else "within"
        return (
            f"On the same predictions the mean margins differ by {means.sum():+.2f} nat, most in "
            f"{about}: {clear} the error of the text; that of the seed is not in it."
        )
    first = f"{capital(about)} is the largest part of a mean margin of {means.sum():.2f} nat."
    if "worst_residual" not in ds.attrs:
        return first
    return (
        f"{first} The parts miss no margin by more than {ds.attrs['worst_residual']:.0e} nat; with "
        "the final norm's scale held fixed they attribute, and do not say what removal would do."
    )
