"""Synthetic results about margins, each with a planted twin, for figures and readings."""

import numpy as np
import xarray as xr

from workbench.result import check, variable

HOSTILE = "<b>$x</b>"


def parts(values, *, width=0.1, **attrs):
    """Mean parts of margins by component, with intervals of one width."""
    means = np.array(list(values.values()))
    named = {"mean": means, "low": means - width, "high": means + width}
    data = {name: variable("component", each, name, "nat") for name, each in named.items()}
    coords = {"component": list(values)}
    return check(xr.Dataset(data, coords=coords, attrs={"records": 40, "groups": 9} | attrs))


def network(*, n_visit=4, planted=True):
    """A network whose visit 2 feed-forward writes most."""
    values = {"embedding": 0.4}
    for visit in range(n_visit):
        values |= {f"visit.{visit}.head_out.{head}": 0.01 * head for head in range(4)}
        values[f"visit.{visit}.feedforward_out"] = 2.0 if planted and visit == 2 else -0.1
    return parts(values | {"output_bias": 0.0}, worst_residual=3e-7)


def damping(*, planted=False):
    """Curves of prior and bias; planted: half of the bias is better."""
    prior, bias = [0.0, 0.5, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.5, 0.0]
    change = np.array([0.5, 0.1, 0.0, -0.08 if planted else 0.02, 0.3])
    data = {
        "change": variable("setting", change, "bits per byte added", "bit/byte"),
        "change_standard_error": variable("setting", [0.02, 0.01, 0, 0.01, 0.02], "e", "bit/byte"),
        "change_by_class": variable(
            ("setting", "token_class"), np.outer(change, [0.75, 0.25]), "added", "bit/byte"
        ),
        "flips": variable("setting", [90, 30, 0, 12, 60], "flips"),
    }
    coords = {"prior_kept": ("setting", prior), "bias_kept": ("setting", bias)}
    coords |= {"token_class": ["word_start", "digit"]}
    return check(xr.Dataset(data, coords=coords, attrs={"tokens": 400, "bits_per_byte": 2.0}))


def frequency(*, planted=False, count=60):
    """Tokens near their line; planted: one far above it."""
    rng = np.random.default_rng(0)
    common, excess = -np.linspace(3, 10, count), rng.normal(0, 0.2, count)
    excess[-1] = np.nan
    excess[7] = 5.0 if planted else excess[7]
    pieces = [f" w{n}" for n in range(count)]
    pieces[7] = HOSTILE
    columns = {
        "prior": (common + np.nan_to_num(excess), "nat"),
        "bias": (np.zeros(count), "nat"),
        "log_unigram": (common, "nat"),
        "excess": (excess, "nat"),
        "norm": (np.ones(count), "1"),
        "count": (np.arange(count) + 20, "token"),
    }
    data = {
        name: variable("vocabulary", each, name, unit) for name, (each, unit) in columns.items()
    }
    classes = np.array(["word_start", "digit", "byte"])[np.arange(count) % 3]
    coords = {"piece": ("vocabulary", pieces), "token_class": ("vocabulary", classes)}
    return check(xr.Dataset(data, coords=coords, attrs={"correlation": 0.97}))


def lens(*, planted=False):
    """Four visits that lower the loss; planted: visit 3 does not."""
    loss = np.array([6.0, 5.0, 3.5, 3.5 if planted else 3.0])
    columns = {
        "loss": (loss, "nat/token"),
        "loss_standard_error": (np.full(4, 0.05), "nat/token"),
        "gain": (np.concatenate([[np.nan], -np.diff(loss)]), "nat/token"),
        "gain_standard_error": (np.array([np.nan, 0.01, 0.01, 0.01]), "nat/token"),
        "rank_low": (np.array([9, 5, 2, 1]), "1"),
        "rank_median": (np.array([90, 50, 20, 7]), "1"),
        "rank_high": (np.array([200, 100, 60, 30]), "1"),
    }
    data = {name: variable("visit", each, name, unit) for name, (each, unit) in columns.items()}
    attrs = {"vocabulary": 1024, "tokens": 500}
    return check(xr.Dataset(data, coords={"visit": range(4)}, attrs=attrs))


MAKERS = {
    "components": network,
    "damping": damping,
    "unigram_prior": frequency,
    "logit_lens": lens,
}
