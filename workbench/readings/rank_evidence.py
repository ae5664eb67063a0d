"""Rank beside need: which matrices use few directions, and which of them the network can spare."""

import numpy as np
import xarray as xr

from workbench.readings.notation import with_error
from workbench.readings.phrasing import capital
from workbench.result import check, variable

LOW_RANK = 0.75  # of the median: below it a rank is low
CORNERS = {  # (rank is low, part is free): name and what it suggests
    (True, True): "dead (drop it)",
    (True, False): "compressible (factor it)",
    (False, True): "redundant (share or drop it)",
    (False, False): "busy (leave it)",
}
FLAT = 0.05  # below 1: weights this near chance say nothing about need
SEED = "; the error of another seed is not in it."


def rank_evidence(
    ranks: xr.Dataset, *, activation: xr.Dataset | None = None, ablation: xr.Dataset | None = None
) -> xr.Dataset:
    """Put the ranks of every matrix beside what its ablation costs.

    A rank of activations is low below 0.75 of the median, and unjudged where two standard errors
    reach across that border. What is free or needed is the verdict of the ablation.

    Parameters
    ----------
    ranks, activation, ablation : Dataset
        Diagnostics `effective_rank`, `activation` and `ablation`; what is None is absent here.

    Returns
    -------
    Dataset
        The last step of `ranks`, and by ``matrix``: `initial`, the rank over that of step 0;
        `activation` and its standard error; `cost` and its standard error; `corner`, a name in
        `CORNERS` or ``unjudged``; of a block that recurs, at the visit where each is highest. By
        ``visit``: `block_cost`. Attrs `border` and `floor`.
    """
    last = ranks.isel(step=-1, drop=True) if "step" in ranks.dims else ranks
    found = last.drop_dims("singular", errors="ignore").drop_attrs(deep=False)
    inside = found.isel(matrix=(found.block >= 0).values)
    blocks, roles = inside.block.drop_vars("role"), inside.role.drop_vars("block")
    if 0 in ranks.get("step", ()):
        ratio = last.effective_rank / ranks.effective_rank.sel(step=0, drop=True)
        found["initial"] = variable("matrix", ratio, "effective rank over that before training")
    for each in (activation, ablation):  # where it was measured, to refuse what differs
        told = {} if each is None else each.attrs
        found.attrs |= {name: told[name] for name in told if str(name).startswith("measured_")}
    every = list(dict.fromkeys(roles.values))  # a role that was not measured is NaN there
    if activation is not None:
        activation = activation.reindex(role=every)
        at = _visits(activation.activation_rank_ratio, roles, blocks)
        seen = activation.sel(visit=at, role=roles).drop_vars(["visit", "role", "block"])
        rank = seen.activation_rank_ratio
        error = seen.activation_rank_standard_error / seen.activation_rank * rank
        found["activation"] = rank
        found["activation_standard_error"] = error.assign_attrs(long_name="its error", units="1")
        found.attrs["border"] = border = LOW_RANK * float(rank.median())
    if ablation is not None:
        whole = ablation.sel(part="block", drop=True).drop_vars("block")
        ablation = ablation.reindex(part=every, fill_value={"verdict": "unjudged"})
        seen = ablation.sel(visit=_visits(ablation.cost, roles, blocks), part=roles)
        seen = seen.drop_vars(["visit", "part", "role", "block"])
        for name in ("cost", "cost_standard_error"):
            found[name], found[f"block_{name}"] = seen[name], whole[name]
        found.attrs["floor"] = ablation.attrs["floor"]
        if activation is not None:
            sure = abs(rank - border) > 2 * error  # never, where no error was measured
            free = seen.verdict.isin(["free", "harmful"]).values
            named = [CORNERS[each] for each in zip((rank < border).values, free, strict=True)]
            known = (sure & (seen.verdict != "unjudged")).values
            corner = xr.zeros_like(seen.verdict).copy(data=np.where(known, named, "unjudged"))
            found["corner"] = corner.assign_attrs(long_name="corner", units="1")
    return check(found)


def _visits(measured: xr.DataArray, roles: xr.DataArray, blocks: xr.DataArray) -> xr.DataArray:
    """Return, for every matrix, the visit of its block where its role measures highest."""
    role = next(str(dim) for dim in measured.dims if dim != "visit")
    own = measured.sel({role: roles}).fillna(-np.finfo(float).max)
    known = np.where(measured.block == blocks, own, -np.inf)  # (visit, matrix)
    return blocks.copy(data=measured.visit.values[known.argmax(axis=0)])


def rank_map(ds: xr.Dataset, *, measure: str) -> str:
    """Name the matrix that a measure puts farthest down, and the block that is worth least.

    Parameters
    ----------
    ds : Dataset
        Of `rank_evidence`, or the difference of two.
    measure : str
        One of its variables.
    """
    if measure not in ds or not np.isfinite(ds[measure]).any():
        return f"Not measured: {measure}."
    compared = "compared" in ds.attrs
    order = -abs(ds[measure]) if compared else ds[measure]
    here = ds.isel(matrix=int(order.argmin("matrix")))
    value, what = float(here[measure]), ds[measure].attrs["long_name"]
    error = float(here.get(f"{measure}_standard_error", np.nan))
    if compared:
        judged = f", {_beyond(value, error)} twice its standard error" if error >= 0 else ""
        number = with_error(value, error, sign="+")
        return f"Most apart is {here.matrix.item()}: {number} in {what}{judged}{SEED}"
    median = float(ds[measure].median())
    number = with_error(value, error)
    said = f"Lowest is {here.matrix.item()}: {number} in {what}, median {median:.2f}."
    if measure == "effective_rank_ratio" and median > 1 - FLAT:
        said += " Nearly all are as flat as chance, as Muon leaves them: judge by activations."
    if "block_cost" in ds:
        least = ds.isel(visit=int(ds.block_cost.argmin("visit")))
        price = with_error(least.block_cost, least.block_cost_standard_error)
        said += f" Worth least is the block of visit {least.visit.item()}: {price} bit/byte without"
        said += " it (+- standard error)."
    return said


def rank_corners(ds: xr.Dataset) -> str:
    """Name what can be dropped, factored or shared, or where two runs need different parts.

    Parameters
    ----------
    ds : Dataset
        Of `rank_evidence`, or the difference of two.
    """
    if not {"cost", "activation"} <= set(ds):
        return "Not measured: the rank of activations, or what ablation costs."
    if "compared" in ds.attrs:
        here = ds.isel(matrix=int(abs(ds.cost).argmax("matrix")))
        cost, error = float(here.cost), float(here.cost_standard_error)
        told = f"{here.matrix.item()}: {with_error(cost, error, sign='+')} bit/byte"
        return f"Need differs most at {told}, {_beyond(cost, error)} twice its standard error{SEED}"
    names = {corner: ds.matrix.values[ds.corner.values == corner] for corner in CORNERS.values()}
    *notable, busy = names
    found = [f"{corner}: {', '.join(names[corner])}" for corner in notable if names[corner].size]
    open_ = int((ds.corner == "unjudged").sum())
    return (
        f"{capital('; '.join(found) or 'nothing to drop, factor or share')}. "
        f"{names[busy].size} are {busy}, {open_} unjudged. Low is below {ds.attrs['border']:.2f}, "
        f"free within twice its error and below {ds.attrs['floor']:g} bit/byte; trained without "
        "it, less would be lost."
    )


def _beyond(value: float, error: float) -> str:
    """Compare a difference with twice its error."""
    return "more than" if abs(value) > 2 * error else "within"
