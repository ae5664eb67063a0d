"""What the effective ranks say."""

import numpy as np
import xarray as xr

from workbench.readings.phrasing import capital

LOW_RANK = 0.75  # of the median ratio: below it a matrix stands out
RANDOM_BAND = 0.02  # a ratio this near 1 cannot be told from random weights by eye


def effective_rank(ds: xr.Dataset) -> str:
    """Name the matrix that uses the fewest directions for its shape, or say that none stands out.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name; the last step is read.
    """
    last = ds.isel(step=-1) if "step" in ds.dims else ds
    ratio = last.effective_rank_ratio.values.astype(float)
    judged = np.isfinite(ratio)
    if not judged.any():
        return f"Not able to judge: no finite effective rank among {ratio.size} matrices."
    gaps = f" ({int((~judged).sum())} of {ratio.size} not judged)" if not judged.all() else ""
    median = float(np.median(ratio[judged]))
    lowest, highest = int(np.nanargmin(ratio)), int(np.nanargmax(ratio))
    names = [_matrix_name(last.isel(matrix=index)) for index in range(ratio.size)]
    if np.abs(ratio[judged] - 1).max() <= RANDOM_BAND:
        return (
            f"All {int(judged.sum())} matrices are within {RANDOM_BAND:.0%} of random weights of "
            f"their shape: their spectra show no trace of training{gaps}."
        )
    if ratio[lowest] >= LOW_RANK * median:
        return (
            f"No matrix stands out: the ratio to random weights runs from {ratio[lowest]:.2f} "
            f"({names[lowest]}) to {ratio[highest]:.2f} ({names[highest]}), "
            f"median {median:.2f}{gaps}."
        )
    standing = np.flatnonzero(judged & (ratio < LOW_RANK * median))
    rank = float(last.effective_rank.values[lowest])
    others = f", the lowest of {standing.size} that stand out" if standing.size > 1 else ""
    return (
        f"{capital(names[lowest])} has effective rank {rank:.1f}, {ratio[lowest]:.2f} of random "
        f"weights of its shape, against a median of {median:.2f} over all matrices{others}. Few "
        f"directions carry it: look at its training (learning rate, frozen or truncated weights) "
        f"before calling it compressible{gaps}."
    )


def _matrix_name(point: xr.Dataset) -> str:
    """Say which matrix in words: ``block 3 value``, ``embedding``."""
    role = str(point.role.item()).replace("_", " ")
    block = int(point.block.item())
    return role if block < 0 else f"block {block} {role}"
