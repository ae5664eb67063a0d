"""Where the answer appears on its way through the network."""

import numpy as np
import xarray as xr


def logit_lens(ds: xr.Dataset) -> str:
    """Name the visit that lowers the loss most, and say so where one does not lower it.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    loss, error = ds.loss.values, ds.loss_standard_error.values
    if len(loss) < 2 or not np.isfinite(loss).all():
        return "Not able to judge: it takes two visits with finite losses."
    gain, limit = loss[:-1] - loss[1:], 2 * np.hypot(error[:-1], error[1:])
    idle = ", ".join(str(at + 1) for at in np.flatnonzero(~(gain > limit)))
    rank = ds.rank_median.values
    return (
        f"The target's median rank goes from {rank[0]} after visit 0 to {rank[-1]} after the last, "
        f"of {ds.attrs['vocabulary']:,} (n {ds.attrs['tokens']:,}). Read by the last visit's head, "
        f"the loss falls most at visit {int(gain.argmax()) + 1}, by {gain.max():.2f} nat/token"
        + (f", and not clearly at {idle}, which may still prepare later ones." if idle else ".")
    )
