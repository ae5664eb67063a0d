"""What the two gradients of a tied matrix say."""

import numpy as np
import xarray as xr

from workbench.readings.notation import with_error

APART = 0.1  # a cosine nearer 0 asks for unrelated changes


def role_conflict(ds: xr.Dataset) -> str:
    """Say whether embedding and head pull their shared matrix the same way.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    cosine, error = float(ds.cosine), float(ds.cosine_standard_error)
    if not np.isfinite([cosine, error]).all():
        return "Not able to judge: a role has no gradient, or all tokens are of one group."
    said = "agree" if cosine > 0 else "work against each other: an untied head is worth a run"
    if abs(cosine) < max(2 * error, APART):
        said = "ask for unrelated changes"
    return (
        f"As embedding and as head, the tied matrix has gradients of cosine "
        f"{with_error(cosine, error, sign='+')} (+- standard error, "
        f"{ds.attrs['tokens']:,} tokens): the roles {said}. The embedding has "
        f"{float(ds.embedding_share):.0%} of their summed norms."
    )
