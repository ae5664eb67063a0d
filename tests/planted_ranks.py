"""Synthetic ranks, costs, spectra and embeddings: planted, and their healthy twins."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from workbench import readings
from workbench.result import check, variable

ROLES = ("query", "key", "value", "attention_out", "feedforward_in", "feedforward_out")
PLANTED = {"block.0.query": (0.3, 0.0001), "block.1.key": (0.3, 0.3), "block.2.value": (0.9, 0.0)}


def groups(*, planted=True, n_block=3, seed=0):
    """Make ranks, activations and ablation of a network whose parts are all busy but three."""
    rng = np.random.default_rng(seed)
    names = [f"block.{b}.{r}" for b in range(n_block) for r in ROLES]
    blocks = np.repeat(range(n_block), 6)
    ratio = rng.uniform(0.8, 0.95, (2, len(names)))
    ranks = {
        "effective_rank": variable(("step", "matrix"), 50 * ratio, "effective rank"),
        "effective_rank_ratio": variable(("step", "matrix"), ratio, "rank over its Gaussian"),
        "alpha": variable(("step", "matrix"), 4 * ratio, "power-law exponent"),
    }
    coords = {"step": [0, 100], "matrix": names, "block": ("matrix", blocks)}
    coords |= {"role": ("matrix", list(ROLES) * n_block)}
    coords |= {side: ("matrix", [64] * len(names)) for side in ("rows", "columns")}
    activity, cost = rng.uniform(0.7, 0.9, len(names)), rng.uniform(0.05, 0.2, len(names))
    for name, (rank, price) in PLANTED.items() if planted else ():
        activity[names.index(name)], cost[names.index(name)] = rank, price
    grid = (n_block, 6)
    visits = {"visit": range(n_block), "block": ("visit", range(n_block))}
    named = ("activation_rank_ratio", "activation_rank", "activation_rank_standard_error")
    seen = {
        name: variable(("visit", "role"), values, "rank of activations")
        for name, values in zip(
            named,
            (activity.reshape(grid), activity.reshape(grid) * 50, np.full(grid, 0.5)),
            strict=True,
        )
    }
    price = np.column_stack([np.linspace(0.1, 0.4, n_block), cost.reshape(grid)])
    need = np.where(price < 0.001, "free", "needed").astype("U8")
    lost = {
        "cost": variable(("visit", "part"), price, "bits per byte added", "bit/byte"),
        "cost_standard_error": variable(
            ("visit", "part"), np.full(price.shape, 0.001), "its error", "bit/byte"
        ),
        "verdict": variable(("visit", "part"), need, "verdict"),
    }
    parts = xr.Dataset(lost, coords=visits | {"part": ["block", *ROLES]}, attrs={"floor": 0.005})
    found = xr.Dataset(seen, coords=visits | {"role": list(ROLES)})
    return check(xr.Dataset(ranks, coords=coords)), check(found), check(parts)


def evidence(**options):
    """Put the groups side by side."""
    ranks, activation, ablation = groups(**options)
    return readings.rank_evidence(ranks, activation=activation, ablation=ablation)


def one_matrix(*, peak=1.2, ratio=0.5):
    """Make the spectrum of one matrix."""
    facts = {"effective_rank": 40.0, "effective_rank_ratio": ratio, "kurtosis": 7.5}
    facts |= {"row_peak": peak, "row_peak_at": 12.0, "column_peak": 1.1, "column_peak_at": 3.0}
    data = {name: variable((), value, name) for name, value in facts.items()}
    curves = {"singular_value": [9.0, 1.0], "singular_value_low": [3.0, 1.0]}
    curves |= {"singular_value_high": [4.0, 1.0]}
    data |= {name: variable("singular", values, name) for name, values in curves.items()}
    return xr.Dataset(data, coords={"matrix": "block.1.value", "rows": 2, "columns": 2})


def truncated(*, planted=True):
    """Make a truncation at three ranks; planted: the lowest costs much."""
    cost = [0.5 if planted else 0.0, 0.001, 0.0]
    data = {
        "cost": variable("setting", cost, "bits per byte added", "bit/byte"),
        "cost_standard_error": variable("setting", [0.01] * 3, "its error", "bit/byte"),
        "bytes": variable("setting", [1000, 2000, 5000], "bytes", "byte"),
    }
    attrs = {"matrix": "embedding", "bytes_whole": 4000, "chosen": 4}
    return check(xr.Dataset(data, coords={"setting": [4, 8, 20]}, attrs=attrs))


def embedded(*, planted=False):
    """Make the parts of an embedding; planted: one is thin, and three rows are near twins."""
    thin, twins = (0.2, 3) if planted else (0.88, 0)
    data = {
        "rows": variable("part", [40, 20, 2], "rows", "token"),
        "effective_rank_ratio": variable("part", [0.9, thin, np.nan], "rank of the rows"),
        "twin_cosine": variable("vocabulary", [0.1, 0.99, 0.98], "cosine"),
    }
    return check(
        xr.Dataset(
            data,
            coords={"part": ["all", "byte", "digit"], "token": ("vocabulary", ["a", "\x1b", " b"])},
            attrs={"twins": twins, "threshold": 0.95},
        )
    )


MAKERS: dict[str, Callable[..., Any]] = {
    "rank_corners": evidence,
    "spectrum": lambda planted=False: one_matrix(peak=3.4 if planted else 1.2),
    "truncation": truncated,
    "embedding": embedded,
}
