"""Made-up results about artifacts: a healthy one and its planted twin."""

import numpy as np
import xarray as xr

from workbench import readings
from workbench.result import check, variable

CLASSES = ("control", "byte", "newline", "whitespace", "digit", "punctuation")
CLASSES += ("word_start", "continuation")
ROLES = ("query", "key", "value", "attention_out", "feedforward_in", "feedforward_out")
PREDICTORS = ("condition_number", "kurtosis", "effective_rank_ratio", "outlier_share")
PREDICTORS += ("weight_error", "output_error", "predicted_cost")
EDGES = np.array([0, 0.25, 0.5, 1, 1.5, 2, 3, np.inf])


def artifact(*, planted=False, noise=False):
    """Two blocks and an embedding; planted: block 1's value pays, and nothing foretells it.

    With `noise` nothing costs anything.
    """
    where = [(-1, "embedding"), *((block, role) for block in range(2) for role in ROLES)]
    n = len(where)
    cost = np.linspace(0.001, 0.013, n)
    cost[where.index((1, "value"))] = 0.2 if planted else 0.005
    cost = cost * 0 if noise else cost
    errors = np.linspace(0.1, 0.9, n)
    data = {
        "weight_error": variable("matrix", errors, "error of weights"),
        "output_error": variable("matrix", errors[::-1] if planted else errors / 9, "of outputs"),
        "predicted_cost": variable("matrix", np.linspace(0.001, 0.013, n), "predicted", "bit/byte"),
        "cost": variable("matrix", cost, "cost of a matrix", "bit/byte"),
        "cost_standard_error": variable("matrix", np.full(n, 0.001), "its error", "bit/byte"),
        "bytes": variable("matrix", np.arange(n) * 100 + 100, "bytes", "byte"),
        "bits_per_weight": variable("matrix", np.full(n, 2.5), "entropy", "bit"),
    }
    total = float(cost.sum())
    for name, value in (
        ("together", total * (1.5 if planted else 1)),
        ("summed", total),
        ("rest", 0),
    ):
        data[f"cost_{name}"] = variable((), value, name, "bit/byte")
        data[f"cost_{name}_standard_error"] = variable((), 0.002, "its error", "bit/byte")
    data["residual"] = variable((), total * 0.5 * planted, "residual", "bit/byte")
    data["residual_standard_error"] = variable((), 0.002, "its error", "bit/byte")
    share = np.array([0, 0, 0.02, 0.02, 0.06, 0.1, 0.3, 0.5])
    tenths = np.linspace(0.19, 0.01, 10)
    for name, dim, parts in (("class", "token_class", share), ("decile", "decile", tenths)):
        spent = parts * float(data["cost_together"].values)
        data[f"cost_by_{name}"] = variable(dim, spent, name, "bit/byte")
        error = np.full(len(parts), 0.001)
        data[f"cost_by_{name}_standard_error"] = variable(dim, error, "its error", "bit/byte")
    rho = np.linspace(-0.4, 0.2 if planted else 0.9, len(PREDICTORS))
    for name, shift in (("rho", 0), ("rho_low", -0.3), ("rho_high", 0.1)):
        data[name] = variable("predictor", rho + shift, "rank correlation")
    data["rho_standard_error"] = variable("predictor", rho * 0 + 0.1, "its error")
    count, chance = np.array([40, 40, 60, 60, 50, 50, 100]), [0.45, 0.35, 0.22, 0.1, 0.04, 0.01, 0]
    lost = np.minimum(count, np.round(count * np.array(chance) * (2 if planted else 1)))
    cell = ("part", "bin")
    data |= {
        "divergence": variable((), 0.05, "KL", "nat/token"),
        "divergence_standard_error": variable((), 0.002, "its error", "nat/token"),
        "agreeing": variable((), 3600, "agreeing", "token"),
        "noise": variable("part", [0.5, 0.7], "noise", "nat"),
        "kept_first": variable(cell, [count, count // 10], "first", "token"),
        "flipped": variable(cell, [lost, lost // 10], "lost", "token"),
        "flip_predicted": variable(cell, [chance, chance], "predicted"),
    }
    coords = {
        "matrix": [role if block < 0 else f"block.{block}.{role}" for block, role in where],
        "block": ("matrix", [block for block, _ in where]),
        "role": ("matrix", [role for _, role in where]),
        "rows": ("matrix", [64] * n),
        "columns": ("matrix", [64] * n),
        "token_class": list(CLASSES),
        "decile": range(10),
        "predictor": list(PREDICTORS),
        "part": ["all", "rare"],
        "low": ("bin", EDGES[:-1]),
        "high": ("bin", EDGES[1:]),
    }
    return check(xr.Dataset(data, coords, {"bytes": 9100, "tokens": 4096}))


def record():
    """Make the record of a run with three artifacts, one without an error."""
    made = {
        "large": {"bytes": 3000, "gap": 0.01, "gap_standard_error": 0.001, "bits_per_byte": 1.51},
        "small": {"bytes": 1000, "gap": 0.16, "gap_standard_error": 0.004},
        "middle": {"bytes": 2000, "gap": 0.05, "gap_standard_error": None},
    }
    return {"artifacts": made, "evaluation": {"bits_per_byte": 1.5}, "parameters": 8000}


def blamed(*, planted=False):
    """Make a search for culprits; planted: one is found."""
    cost = 2.5 if planted else 0.004
    found = {"cost": variable("part", [2.4] * planted, "alone", "bit/byte")}
    attrs = {"cost": cost, "cost_left": 0.004, "healthy": 0.01, "passes": 12}
    attrs["cost_standard_error"] = 0.001
    return xr.Dataset(found, {"part": np.array(["block.1.value"] * planted, dtype=str)}, attrs)


MAKERS = dict.fromkeys(
    ("quantization", "predictors", "quantized_tokens", "quantized_bytes", "survival"), artifact
) | {"frontier": lambda planted=False: readings.artifacts(record()), "culprits": blamed}
