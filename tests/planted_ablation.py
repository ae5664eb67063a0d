"""Made-up results of ablations and interventions: a healthy run and its planted twin."""

import numpy as np
import xarray as xr

from workbench.result import check, variable
from workbench.text import TOKEN_CLASSES

PARTS = ("block", "attention", "feedforward", "query", "key", "value")
PARTS += ("attention_out", "feedforward_in", "feedforward_out")


def made(*, planted=False, few=False):
    """Three visits; planted: nothing in visit 2 is needed, and head 0 of visit 1 is a burden.

    Every cost moves with the text in the same way, but for those of visit 1.
    """
    n_group = 3 if few else 20
    text = np.random.default_rng(3).normal(size=n_group)
    text -= text.mean()
    cost = np.full((3, 9), 0.05) + np.arange(3)[:, None] / 100
    heads = np.full((3, 4), 0.02) + np.array([0, 0, 0.0005])[:, None]
    if planted:
        cost[2], heads[2], heads[1, 0] = 0.0003, 0.0001, -0.01
    data = {}
    for prefix, dim, values in (
        ("", "part", cost),
        ("zero_", "part", cost),
        ("head_", "head", heads),
    ):
        data[f"{prefix}cost"] = variable(("visit", dim), values, "cost", "bit/byte")
        error = np.full(values.shape, 0.001)
        data[f"{prefix}cost_standard_error"] = variable(("visit", dim), error, "error", "bit/byte")
        if prefix != "zero_":
            spread = np.where(np.arange(3) == 1, -0.01, 0.01)[:, None, None] * text
            bits = (values[..., None] + spread) * 100
            summed = variable(("visit", dim, "group"), bits, "bits", "bit")
            data[f"{prefix}cost_by_group"] = summed
            verdict = (
                np.full(values.shape, "unjudged")
                if few
                else np.where(values < 0.003, "free", "needed")
            )
            data[f"{prefix}verdict"] = variable(("visit", dim), verdict, "verdict")
    coords = {
        "visit": range(3),
        "part": list(PARTS),
        "head": range(4),
        "block": ("visit", range(3)),
        "group": range(n_group),
        "bytes_by_group": ("group", np.full(n_group, 100.0)),
    }
    return check(xr.Dataset(data, coords, attrs={"floor": 0.005, "groups": n_group}))


def one_cost(by_class, error, **attrs):
    names = {"intervention": ["visit.1 x 0.5"], "token_class": list(TOKEN_CLASSES)}
    both = ("intervention", "token_class")
    data = {
        "cost": variable("intervention", [sum(by_class)], "bits per byte added", "bit/byte"),
        "cost_standard_error": variable("intervention", [error], "error", "bit/byte"),
        "cost_by_class": variable(both, [by_class], "bits per byte added", "bit/byte"),
        "cost_by_class_standard_error": variable(both, [[error] * 8], "error", "bit/byte"),
    }
    return check(xr.Dataset(data, names, attrs=attrs))


def curve(cost, **attrs):
    factor = [0.0, 0.5, 1.25, 1.5]
    names = {"intervention": [f"x {f}" for f in factor], "factor": ("intervention", factor)}
    data = {
        "cost": variable("intervention", cost, "bits per byte added", "bit/byte"),
        "cost_standard_error": variable("intervention", [0.001] * 4, "error", "bit/byte"),
    }
    return check(xr.Dataset(data, names, attrs=attrs))


def changed(*, planted=False):
    """Make one intervention; planted: continuations pay for it all."""
    by_class = (
        [0, 0, 0, 0, 0, 0, 0, 0.05] if planted else [0, 0.001, -0.002, 0, 0.003, 0.004, 0.01, 0.01]
    )
    return one_cost(by_class, 0.001)


def strengths(*, planted=False):
    """Make a curve; planted: more would be better."""
    return curve([0.1, 0.02, -0.01 if planted else 0.001, 0.03])


MAKERS = {"ablation": made, "intervention": changed, "intervention_curve": strengths}
