"""What ablations and other interventions say."""

import numpy as np
import xarray as xr

from workbench.readings.notation import with_error
from workbench.readings.phrasing import gaps
from workbench.result import grouped_ratio

CAUTION = "This overstates what a network trained without it would lose."
NAMED = 2  # free parts that are named, what costs least first
SEED = "What another seed would change is not in the error."


def ablated_cells(ds: xr.Dataset) -> xr.Dataset:
    """Join the parts and the heads of `diagnostics.ablation`, each place once, named in `part`."""
    same = [f"{each}_{end}" for each in ("attention", "feedforward") for end in ("in", "out")]
    names = [str(name) for name, values in ds.data_vars.items() if "head" in values.dims]
    plain = {name: name.removeprefix("head_") for name in names} | {"head": "part"}
    heads = ds[names].rename(plain)
    heads = heads.assign_coords(part=[f"head.{head}" for head in ds["head"].values])
    parts = ds.drop_vars([*names, "head"]).drop_sel(part=same, errors="ignore")
    return xr.concat([parts, heads], "part", join="outer", combine_attrs="override")


def alike(cells: xr.Dataset, chosen: str) -> xr.DataArray:
    """Tell which cells cost as much as one of them, within twice the error of their difference.

    Parameters
    ----------
    cells : Dataset
        Of `ablated_cells`.
    chosen : str
        Name of a cell, such as ``visit.1.head.0``.

    Returns
    -------
    DataArray
        Dims ``visit, part``; False at the chosen cell, and everywhere if it is none of the cells.
    """
    _, visit, part = (*chosen.split(".", 2), "", "")[:3]
    here = (cells.visit.astype(str) == visit) & (cells.part == part)
    one = cells.cost_by_group.where(here).sum(["visit", "part"])
    apart = (cells.cost_by_group - one).transpose("visit", "part", "group")
    difference, error = grouped_ratio(apart.values, cells.bytes_by_group.values)
    close = xr.DataArray(abs(difference) <= 2 * error, dims=("visit", "part"))
    return (close & ~here & here.any()).transpose("visit", "part")


def ablation(ds: xr.Dataset, *, chosen: str = "") -> str:
    """Name the dearest and the cheapest block, and count what the network can do without.

    Of two runs (`result.difference`) it names the part whose cost differs most.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    chosen : str
        A cell, such as ``visit.1.head.0``: how many others it cannot be told from is said.
    """
    table = ablated_cells(ds)
    cells = table.stack(at=("part", "visit"))
    names = [f"visit {visit} {part.replace('.', ' ')}" for part, visit in cells.at.values]
    cost, error = cells.cost.values, cells.cost_standard_error.values
    told = [f"{name} ({_pair(*each)})" for name, *each in zip(names, cost, error, strict=True)]
    n_block, measured = ds.sizes["visit"], np.isfinite(cost)
    if not measured[:n_block].all():
        return "Not able to judge: the cost of some block is not finite."
    if "compared" in ds.attrs:
        beyond = abs(cost) > 2 * error
        at = int(np.nanargmax(abs(cost) * (beyond if beyond.any() else 1)))
        return (
            f"{beyond.sum()}/{measured.sum()} parts and heads cost more in one run than in the "
            f"other, by twice their error; most apart is {told[at]}. {SEED}"
        )
    free = cells.verdict.values == "free"
    judged = (
        f"free are {free[:n_block].sum()}/{n_block} blocks and {free[n_block:].sum()}/"
        f"{measured[n_block:].sum()} other parts and heads, within twice the standard error "
        f"(+-) and below {ds.attrs['floor']} bit/byte: leave those out of a new training first"
    )
    if free.any():
        order = sorted(np.flatnonzero(free), key=lambda at: abs(cost[at]))
        judged += f" ({', '.join(names[at] for at in order[:NAMED])}"
        judged += f" and {len(order) - NAMED} more)" if len(order) > NAMED else ")"
    harmful = np.flatnonzero(cells.verdict.values == "harmful")
    if harmful.size:
        worst = told[min(harmful, key=lambda at: cost[at])]
        judged += f"; {harmful.size} harm, most {worst}: the network is better without"
    if (cells.verdict == "unjudged").all():
        judged = f"no verdict from {ds.attrs['groups']} independent texts or facts"
    dear, cheap = told[cost[:n_block].argmax()], told[cost[:n_block].argmin()]
    same, others = int(alike(table, chosen).sum()), measured.sum() - 1
    beside = f" From {chosen}, {same}/{others} others cannot be told (dotted)." if chosen else ""
    return (
        f"Dearest to replace by its mean is {dear}, cheapest {cheap}; {judged}.{beside} {CAUTION}"
    )


def intervention(ds: xr.Dataset) -> str:
    """Say what the first intervention costs, and which classes of tokens pay most.

    Parameters
    ----------
    ds : Dataset
        Result of `diagnostics.intervention_cost`.
    """
    one = ds.isel(intervention=0)
    cost, error = one.cost_by_class.values, one.cost_by_class_standard_error.values
    hurt = [at for at in np.argsort(-cost) if cost[at] > 2 * error[at]]
    most = [f"{one.token_class.values[at]} {_pair(cost[at], error[at])}" for at in hurt[:2]]
    whom = f"it falls most on {' and '.join(most)}" if most else "no class pays beyond noise"
    total = _pair(float(one.cost), float(one.cost_standard_error))
    more, caution = ("more, ", SEED) if "compared" in ds.attrs else ("", CAUTION)
    return f"With {one.intervention.item()} the text costs {more}{total}; {whom}. {caution}"


def intervention_curve(ds: xr.Dataset) -> str:
    """Say whether another strength would do better than the trained one.

    Parameters
    ----------
    ds : Dataset
        Result of `diagnostics.Trial.cost` of several factors.
    """
    known = np.isfinite(ds.cost.values)
    lost = gaps(ds.cost + ds.cost_standard_error, "factors")
    if not known.any():
        return f"Not able to judge: the cost of none of {known.size} factors is finite."
    best = ds.isel(intervention=int(np.nanargmin(np.where(known, ds.cost.values, np.nan))))
    cost, error = float(best.cost), float(best.cost_standard_error)
    told = f"factor {float(best.factor):g} costs {_pair(cost, error)}"
    if not np.isfinite(error):
        return f"Not able to judge: {told}{lost}."
    if "compared" in ds.attrs:
        return f"Of {ds.cost.size} factors {told} more, the least{lost}. {SEED}"
    if cost < -2 * error:
        return f"The trained strength is not the best: {told}{lost}. Try training its scale faster."
    return (
        f"No other factor beats the trained strength beyond noise; of {ds.cost.size}, {told}{lost}."
    )


def _pair(cost: float, error: float) -> str:
    """Write a cost with its error, and that it is noise where it is."""
    noise = ", noise" if abs(cost) <= 2 * error else ""
    return f"{with_error(cost, error, sign='+')} bit/byte{noise}"
