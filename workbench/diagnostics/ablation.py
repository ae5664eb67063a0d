"""What every part of a trained network is worth: replaced by its mean, or by nothing.

An ablation is causal for the network as it was trained; one trained without the part would do
better than one that has lost it, so a cost overstates what the part is good for.
"""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.diagnostics.intervention import PARTS, Trial, added_bits
from workbench.diagnostics.sample import Diagnostic, Rows
from workbench.model import Network
from workbench.result import check, grouped_ratio, variable

FLOOR = 0.005  # bit/byte: less decides nothing, another seed changes more
FEW_GROUPS = 8  # with fewer, a standard error says too little for a verdict
WORK = 1e13  # parameters times positions at most; about four minutes on one core


def ablation(model: Network, rows: Rows) -> xr.Dataset:
    """Measure what it costs to do without each part and each head of each visit.

    A part is replaced by its mean over all present positions, or by zero, at the output of its
    matrix: ``block`` is both writes into the stream at once, ``attention_out`` is the same place
    as ``attention``, and ``feedforward_in`` and ``feedforward_out`` as ``feedforward``, because
    what follows the hidden layer is linear. A ``value`` is replaced as later
    visits see it, so with a value residual its cost holds theirs too. A head is replaced by the
    mean of what it read. Costs do not add up: parts can stand in for one another.

    A part is *free* where its cost is within twice its standard error and even their sum is below
    the floor of 0.005 bit/byte, *needed* where its cost exceeds both, *harmful* where doing
    without saves more than both, else *unjudged*, as all are with fewer than 8 groups.

    Of a large network what would exceed 1e13 parameters times positions is left out and NaN: the
    zero ablations before the heads.

    Parameters
    ----------
    model : Network
        Left as it was found.
    rows : Rows
        See `Sample.rows`.

    Returns
    -------
    Dataset
        Dims ``visit, part, head, group``: `cost`, `zero_cost`, `head_cost`, each with its paired
        standard error [bit/byte] and, but for zero, its bits by group, so that any two can be
        compared on the same text; `verdict`, `head_verdict`. Coordinate `bytes_by_group`. Attrs
        ``floor`` [bit/byte] and ``groups``.
    """
    trial, visits = Trial(model=model, rows=rows), range(len(model.config.visits))
    heads = range(model.config.n_head)
    known = {site.rpartition(".")[2] for site in model.sites()}
    parts = {part: sites for part, sites in PARTS.items() if known.issuperset(sites)}
    distinct = {sites: part for part, sites in parts.items()}
    same = [list(distinct).index(sites) for sites in parts.values()]
    plans = {  # what matters most comes first
        "": ("part", list(distinct.values()), "mean", same),
        "head_": ("head", [f"head.{head}" for head in heads], "mean", list(heads)),
        "zero_": ("part", list(distinct.values()), "zero", same),
    }
    left = WORK / (rows.inputs.numel() * sum(each.numel() for each in model.parameters()))
    size = rows.by_group(rows.bytes)
    data = {}
    for prefix, (dim, names, how, order) in plans.items():
        bits = np.full((len(visits), len(names), len(size)), np.nan)
        left -= len(visits) * len(names)
        if left >= 0:
            places = [f"visit.{visit}.{name}" for visit in visits for name in names]
            changes = (trial.parse(place, how) for place in places)
            added = [added_bits(model, rows, [change], base=trial.base) for change in changes]
            bits = rows.by_group(np.concatenate(added)).reshape(bits.shape)
        dims, bits = ("visit", dim), bits[:, order]
        value, error = grouped_ratio(bits, size)
        about = f"bits per byte added, {dim} {'at its mean' if how == 'mean' else 'at zero'}"
        unsure = "its paired standard error over groups"
        data[f"{prefix}cost"] = variable(dims, value, about, "bit/byte")
        data[f"{prefix}cost_standard_error"] = variable(dims, error, unsure, "bit/byte")
        if how == "mean":
            verdict = _verdict(value, error, judged=len(size) >= FEW_GROUPS)
            data[f"{prefix}verdict"] = variable(dims, verdict, "what it is worth")
            summed = variable((*dims, "group"), bits, "bits added in each group", "bit")
            data[f"{prefix}cost_by_group"] = summed
    coords = {
        "visit": visits,
        "block": ("visit", list(model.config.visits)),
        "part": list(parts),
        "head": heads,
        "group": np.unique(rows.group),
        "bytes_by_group": variable("group", size, "bytes of each group", "byte"),
    }
    attrs = {"floor": FLOOR, "groups": len(size), "tokens": len(rows.bytes)}
    return check(xr.Dataset(data, coords, attrs))


def _verdict(
    cost: NDArray[np.float64], error: NDArray[np.float64], *, judged: bool
) -> NDArray[np.str_]:
    """Judge costs by their noise and by the floor."""
    harmful = judged & (cost < -2 * error) & (cost < -FLOOR)
    free = judged & (cost <= 2 * error) & (cost + 2 * error < FLOOR)
    needed = judged & (cost > 2 * error) & (cost > FLOOR)
    names = ["harmful", "free", "needed"]
    return np.select([harmful, free, needed], names, default="unjudged")


DIAGNOSTIC = Diagnostic(
    tier="intervention",
    measure=lambda sample: ablation(sample.model, sample.rows),
    sites=tuple(f"visit.0.{site}" for site in ("head_out", "attention_out", "feedforward_out")),
)
