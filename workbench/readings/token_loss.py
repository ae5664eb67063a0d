"""What the loss by class says."""

import math

import numpy as np
import xarray as xr

from workbench.readings.phrasing import capital

FEW_TOKENS = 200


def token_loss(ds: xr.Dataset) -> str:
    """Name the class that costs most, and the one that costs most beyond how common it is.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    counts = ds.tokens.values.astype(float)
    rows = ds.isel(token_class=np.flatnonzero(counts >= FEW_TOKENS))
    few = int(((counts > 0) & (counts < FEW_TOKENS)).sum())
    classes = "1 class" if few == 1 else f"{few} classes"
    small = f"; {classes} with under {FEW_TOKENS} tokens not judged" if few else ""
    if not rows.sizes["token_class"] or not np.isfinite(rows.contribution.values).all():
        return f"Not able to judge: no class has {FEW_TOKENS} tokens with a finite loss{small}."
    total = float(ds.contribution.where(ds.tokens > 0, 0.0).sum(skipna=False))
    order = np.argsort(-rows.contribution.values, kind="stable")
    most = rows.isel(token_class=order[0])
    first = (
        f"{capital(_class(most))} tokens cost most: {float(most.contribution):.3f}{_error(most)} "
        f"of {total:.3f} bit/byte, {float(most.loss_share):.0%} of the loss for "
        f"{float(most.token_share):.0%} of the tokens"
    )
    if order.size > 1:
        first += _tie(most, rows.isel(token_class=order[1]))
    excess = rows.loss_share.values / rows.token_share.values
    dearest = rows.isel(token_class=int(np.argmax(excess)))
    if _class(dearest) == _class(most):
        second = "no class costs more for how common it is"
    else:
        second = (
            f"the dearest for how common they are is {_class(dearest)} "
            f"({float(dearest.loss_share):.1%} of the loss for {float(dearest.token_share):.1%})"
        )
    return f"{first}; {second}{small}."


def _class(point: xr.Dataset) -> str:
    """Return a class's name in words."""
    return str(point.token_class.item()).replace("_", " ")


def _error(point: xr.Dataset) -> str:
    """Tell the standard error where it was measured."""
    error = float(point.get("contribution_standard_error", math.nan))
    return f" (standard error {error:.3f})" if math.isfinite(error) else ""


def _tie(most: xr.Dataset, second: xr.Dataset) -> str:
    """Say so where the first class cannot be told from the second."""
    gap = float(most.contribution) - float(second.contribution)
    error = float(second.get("lead_standard_error", math.nan))
    if not gap < 2 * error:
        return ""
    return f", not separable from {_class(second)} ({float(second.contribution):.3f})"
