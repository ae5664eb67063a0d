"""Where the answer appears on its way through the network."""

import numpy as np
import xarray as xr

from workbench.readings.notation import with_error


def logit_lens(ds: xr.Dataset) -> str:
    """Name the visit that lowers the loss most, and say so where one does not lower it.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    loss, rank = ds.loss.values, ds.rank_median.values
    if len(loss) < 2 or not np.isfinite(loss).all():
        return "Not able to judge: it takes two visits with finite losses."
    said = (
        f"The target's median rank goes from {rank[0]} after visit 0 to {rank[-1]} after the last, "
        f"of {ds.attrs['vocabulary']:,} (n {ds.attrs['tokens']:,})."
    )
    if "gain" not in ds:  # of a diagnosis from before it was measured
        return f"{said} Not able to judge visits: diagnose again for paired errors."
    gain, error = ds.gain.values[1:], ds.gain_standard_error.values[1:]
    if not np.isfinite(error).all():
        return f"{said} Not able to judge visits: the error of their gain is unknown."
    idle, most = np.flatnonzero(gain <= 2 * error) + 1, int(gain.argmax())
    kept = f", and not clearly at {', '.join(map(str, idle))}, which may still prepare later ones"
    return (
        f"{said} Read by the last visit's head, the loss falls most at visit {most + 1}, by "
        f"{with_error(gain[most], error[most])} nat/token (+- paired standard error)"
        f"{kept if idle.size else ''}."
    )
