"""Synthetic results of the mixing scalars and of the curve of one alpha: healthy and planted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from workbench.result import check, variable

KINDS = ("resid_mix_stream", "attn_scale", "mlp_scale", "q_gain", "value_residual")


def make_mixing(*, planted: bool = False) -> xr.Dataset:
    """Five scalars in each of two visits; planted: the q_gain of visit 1 does nothing."""
    names = [(visit, kind) for visit in (1, 2) for kind in KINDS]
    zero, reset = np.geomspace(2.0, 0.02, 10), np.geomspace(0.4, 0.006, 10)
    decision = np.full(10, "keep", dtype=object)
    reset[-1] = -0.01
    if planted:
        zero[3], reset[3], decision[3] = 0.0, 0.0, "remove"
    init = np.array([1.5 if kind == "q_gain" else 1.0 for _, kind in names])
    made = {
        "mean": variable(("step", "scalar"), [init, init + 0.25], "mean over entries"),
        "init": variable("scalar", init, "mean initial value"),
        "zero_cost": variable("scalar", zero, "cost of 0", "bit/byte"),
        "zero_cost_standard_error": variable("scalar", zero / 10, "its error", "bit/byte"),
        "reset_cost": variable("scalar", reset, "cost of the start", "bit/byte"),
        "reset_cost_standard_error": variable("scalar", abs(reset) / 10, "its error", "bit/byte"),
        "decision": variable("scalar", decision.astype(str), "decision"),
    }
    coords = {
        "step": [0, 50],
        "scalar": [f"visit {visit} {kind}" for visit, kind in names],
        "kind": ("scalar", [kind for _, kind in names]),
        "visit": ("scalar", [visit for visit, _ in names]),
    }
    return check(xr.Dataset(made, coords=coords, attrs={"small": 0.002}))


def make_alpha_curve(*, planted: bool = False) -> xr.Dataset:
    """A parabola around the learned mix of 1.2; planted: nothing depends on the mix."""
    setting = np.array([0.0, 0.5, 0.6, 0.96, 1.2, 1.44, 1.8, 2.4])
    cost = 0.02 * (setting - 1.2) ** 2 * (not planted)
    made = {
        "cost": variable("setting", cost, "cost of this mix", "bit/byte"),
        "cost_standard_error": variable("setting", cost / 20, "its error", "bit/byte"),
        "curvature": variable((), 0.04 * (not planted), "curvature", "bit/byte"),
        "curvature_standard_error": variable((), 0.002, "its error", "bit/byte"),
        "minimum": variable((), 1.2, "mix of least loss"),
    }
    for name in ("mean_cost", "asked_cost"):
        made[name] = variable((), 0.03, name, "bit/byte")
        made[f"{name}_standard_error"] = variable((), 0.002, "its error", "bit/byte")
    attrs = {"visit": 3, "learned": 1.2, "init": 0.5, "small": 0.002, "asked": 2.0}
    attrs["verdict"] = "flat" if planted else "needed"
    return check(xr.Dataset(made, coords={"setting": setting}, attrs=attrs))


MAKERS: dict[str, Callable[..., Any]] = {"mixing": make_mixing, "alpha_curve": make_alpha_curve}
