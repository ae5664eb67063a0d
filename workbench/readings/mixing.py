"""What the learned mixing scalars say."""

from collections import Counter

import numpy as np
import xarray as xr


def mixing(ds: xr.Dataset) -> str:
    """Name the scalar whose learned value is worth most, and count what could go.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name, or the difference of two.
    """
    if "compared" in ds.attrs:
        return differs(ds, dim="scalar", cost="reset_cost")
    if not np.isfinite(ds.reset_cost).any():
        return "Not able to judge: no cost of a learned scalar was measured."
    top = ds.isel(scalar=int(np.nanargmax(np.abs(ds.reset_cost.values))))
    counts = Counter(ds.decision.values.tolist()).most_common()
    mean, error = float(top["mean"].values.flat[-1]), float(top.reset_cost_standard_error)
    told = ", ".join(f"{decision} {n}" for decision, n in counts)
    return (
        f"Setting {top.scalar.item()} back from a mean of {mean:.2f} to {float(top.init):.2f} "
        f"changes the loss most, by {float(top.reset_cost):+.4f} +- {error:.4f} bit/byte. "
        f"Decisions on {ds.sizes['scalar']} scalars and vectors: {told}; what is free in a "
        "trained model is free, what costs may be needed less than it seems."
    )


def differs(ds: xr.Dataset, *, dim: str, cost: str) -> str:
    """Say where a cost of two runs differs most, and whether their errors allow to say so."""
    at = int(np.nanargmax(np.abs(ds[cost].values)))
    value, error = float(ds[cost][at]), float(ds[f"{cost}_standard_error"][at])
    where = f"{dim} {ds[dim].values[at]}".removeprefix("scalar ")
    return (
        f"The runs differ most at {where}: {cost.replace('_', ' ')} {value:+.4f} +- {error:.4f} "
        f"bit/byte, the first less the second, {'beyond' if abs(value) > 2 * error else 'within'} "
        "twice their error in quadrature; that of another seed is not in it."
    )
