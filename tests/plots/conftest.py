"""Synthetic results with the promised schema: a healthy run and its planted twin."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import xarray as xr
from planted_ablation import MAKERS as ABLATION_MAKERS
from planted_mixing import MAKERS as MIXING_MAKERS
from planted_quantization import MAKERS as QUANTIZATION_MAKERS
from planted_ranks import MAKERS as RANK_MAKERS

from workbench import plots
from workbench.result import check, variable

HOSTILE = ("<script>alert(1)</script>", "<b>bold</b>", "$x^2$", " the", "\n", "\x1b[31m", "%{x}")
CLASSES = (
    "control",
    "byte",
    "newline",
    "whitespace",
    "digit",
    "punctuation",
    "word_start",
    "continuation",
)


def make_effective_rank(*, planted: bool = False, steps: Sequence[int] = ()) -> xr.Dataset:
    """Four blocks of six matrices, embedding and head; planted: block 2 feedforward_out is thin."""
    rng = np.random.default_rng(3)
    roles = ("query", "key", "value", "attention_out", "feedforward_in", "feedforward_out")
    where = [(-1, "embedding"), *((b, r) for b in range(4) for r in roles), (-1, "head")]
    gaussian = np.array([120.0 if role == "embedding" else 104.0 for _, role in where])
    ratio = rng.uniform(0.84, 0.98, len(where))
    if planted:
        ratio[where.index((2, "feedforward_out"))] = 0.31
    if steps:
        ratio = 1 - (1 - ratio) * np.linspace(0, 1, len(steps))[:, None]
    dims = ("step", "matrix") if steps else ("matrix",)
    made = {
        "effective_rank": variable(dims, ratio * gaussian, "effective rank"),
        "effective_rank_energy": variable(dims, ratio * gaussian * 0.8, "energy effective rank"),
        "participation_ratio": variable(dims, ratio * gaussian * 0.7, "participation ratio"),
        "stable_rank": variable(dims, ratio * gaussian * 0.3, "stable rank"),
        "numerical_rank": variable(dims, np.full(ratio.shape, 128), "numerical rank"),
        "condition_number": variable(dims, np.full(ratio.shape, 812.5), "condition number"),
        "effective_rank_gaussian": variable("matrix", gaussian, "effective rank of a Gaussian"),
        "effective_rank_ratio": variable(dims, ratio, "effective rank over that of a Gaussian"),
    }
    coords = {
        "matrix": [role if b < 0 else f"blocks.{b}.{role}" for b, role in where],
        "block": ("matrix", [b for b, _ in where]),
        "role": ("matrix", [role for _, role in where]),
        "rows": ("matrix", [128] * len(where)),
        "columns": ("matrix", [128] * len(where)),
    } | ({"step": list(steps)} if steps else {})
    return check(xr.Dataset(made, coords=coords))


def make_value_residual(*, planted: bool = False, n_step: int = 9) -> xr.Dataset:
    """Six visits, the first without an earlier value; planted: 3 idle, 5 bypassed, 4 negative."""
    final = np.array([np.nan, 0.42, 0.35, 0.51, 0.62, 0.28])
    share = np.array([np.nan, 0.38, 0.33, 0.49, 0.55, 0.21])
    if planted:
        final[3:], share[3:] = (0.004, -0.3, 4.1), (0.003, 0.24, 0.98)
    rise = np.sqrt(np.linspace(0, 1, n_step))[:, None] if n_step > 1 else np.ones((1, 1))
    alpha, shares = 0.5 + (final - 0.5) * rise, 0.45 + (share - 0.45) * rise
    dims = ("step", "visit")
    made = {
        "alpha": variable(dims, alpha * 1.5, "learned gate"),
        "alpha_effective": variable(dims, alpha, "signed mix applied"),
        "contribution": variable(
            dims, np.sign(alpha) * shares * 0.8, "projection of the earlier value"
        ),
        "contribution_share": variable(dims, shares, "share of the earlier value"),
        "gradient_share": variable(
            dims, np.where(np.isnan(shares), np.nan, 0.01), "gradient share"
        ),
    }
    coords = {"step": np.arange(n_step) * 50, "visit": range(6), "block": ("visit", range(6))}
    return check(xr.Dataset(made, coords=coords))


def make_logit_prior(
    *, planted: bool = False, records: int = 60, tokens: Sequence[str] = (" a", " n", " mia")
) -> xr.Dataset:
    """Records in three profiles; planted: profile owner is won by the bias of the second token."""
    rng = np.random.default_rng(5)
    profile = np.array(["owner", "color", "place"])[np.arange(records) % 3]
    target = np.array([tokens[i % len(tokens)] for i in range(records)])
    bias, prior = rng.normal(0.1, 0.1, records), rng.normal(0.3, 0.2, records)
    context = rng.normal(2.5, 0.6, records)
    verdict = np.full(records, "context", dtype=object)
    winner = target.copy()
    if planted:
        won = profile == "owner"
        bias[won], context[won], verdict[won] = 4.0, -0.8, "bias"
        winner[won] = tokens[1]
    rival = np.array([tokens[0] if each != tokens[0] else tokens[-1] for each in winner])
    made = {
        "margin": variable("record", bias + prior + context, "margin of the winner", "nat"),
        "bias": variable("record", bias, "part of the output bias", "nat"),
        "prior": variable("record", prior, "part of the mean hidden state", "nat"),
        "context": variable("record", context, "part of this context", "nat"),
        "hidden_projection": variable("record", prior + context, "part of the hidden state", "nat"),
        "verdict": variable("record", verdict.astype(str), "what suffices to win"),
        "pressure": variable(
            "record",
            np.where(verdict == "bias", "output_bias", "hidden_projection"),
            "larger pressure",
        ),
    }
    coords = {
        "winner": ("record", winner),
        "rival": ("record", rival),
        "target": ("record", target),
        "profile": ("record", profile),
        "correct": ("record", winner == target),
    }
    return check(xr.Dataset(made, coords=coords, attrs={"reference": "validation tokens"}))


def make_routing_audit(*, planted: bool = False) -> xr.Dataset:
    """Five profiles, one with a single target; planted: owner collapsed, color permuted."""
    names = ["place", "color", "owner", "learning", "unknowns"]
    unique = np.array([4, 4, 5, 3, 1])
    owned, covered = np.array([1.0, 1.0, 1.0, 1.0, 1.0]), np.array([1.0, 1.0, 1.0, 1.0, 1.0])
    accuracy = np.array([1.0, 0.95, 1.0, 0.9, 1.0])
    dominant = np.array([0.25, 0.3, 0.2, 0.4, 1.0])
    cause = np.array(["no_branch_diversity_gap"] * 4 + ["single_target_profile"], dtype=object)
    if planted:
        owned[:3], covered[:3] = (0.75, 0.25, 0.0), (0.75, 1.0, 0.0)
        accuracy[:3], dominant[:3] = (0.7, 0.2, 0.0), (0.4, 0.3, 1.0)
        cause[:3] = ("target_coverage_gap", "wrong_diverse_predictions", "prediction_collapse")
    collapsed = (dominant == 1) & (unique > 1)
    made = {
        "records": variable("profile", [24, 24, 24, 18, 6], "records"),
        "target_unique": variable("profile", unique, "different targets"),
        "predicted_unique": variable("profile", np.where(collapsed, 1, unique), "predictions"),
        "target_coverage": variable("profile", covered, "targets predicted anywhere"),
        "owned_coverage": variable("profile", owned, "targets predicted for their own record"),
        "accuracy": variable("profile", accuracy, "accuracy"),
        "dominant_rate": variable("profile", dominant, "share of the commonest answer"),
        "collapsed": variable("profile", collapsed, "one answer to all"),
        "separation": variable(
            "profile", [2.1, 1.8, 1.02 if planted else 1.9, 2.4, np.nan], "separation"
        ),
        "escape_risk": variable(
            "profile", ["low", "low", "high" if planted else "low", "low", "low"], "escape risk"
        ),
        "root_cause": variable("profile", cause.astype(str), "root cause"),
        "dominant_token": variable("profile", ["k", "r", "<b>n", "s", "?"], "commonest answer"),
    }
    return check(add_ladder(xr.Dataset(made, coords={"profile": names}), planted=planted))


def add_ladder(ds: xr.Dataset, *, planted: bool) -> xr.Dataset:
    """Add rungs, targets and steps; planted: owner stops at the probe and falls below its floor."""
    rungs = ["context", "reachable", "probe", "prior", "separation", "imbalance", "ownership"]
    state = np.full((5, 7), "green", dtype="<U17")
    state[4] = "not able to judge"
    red = np.full(5, "", dtype="<U17")
    if planted:
        state[2, 2:], state[0, 6], state[1, 6] = "not reached", "red", "red"
        state[2, 2], red[:3] = "red", ("ownership", "ownership", "probe")
    asked = np.full((5, 5), np.nan)
    right, answered, can = asked.copy(), asked.copy(), asked.copy()
    for row, (n, kept, covered) in enumerate(
        zip(
            ds.target_unique.values,
            ds.owned_coverage.values,
            ds.target_coverage.values,
            strict=True,
        )
    ):
        asked[row, :n], right[row, :n], answered[row, :n], can[row, :n] = 4, 0, 0, 1
        answered[row, : round(covered * n)] = 4
        right[row, : round(kept * n)] = 4
    series = np.linspace(0, 1, 3)[:, None] * ds.owned_coverage.values
    above = np.maximum(series, 0.0)
    if planted:
        above[2, 2] = -0.25
    cell, walk = ("profile", "target"), ("step", "profile")
    made = {
        "state": variable(("profile", "rung"), state, "state of the rung"),
        "first_red": variable("profile", red, "first rung that is red"),
        "localised": variable(
            "profile", ["none", "none", "trunk" if planted else "none", "none", "none"], "at fault"
        ),
        "asked": variable(cell, asked, "records"),
        "right": variable(cell, right, "right records"),
        "answered": variable(cell, answered, "records so answered"),
        "target_reachable": variable(cell, can, "can win"),
        "coverage_by_step": variable(walk, series, "coverage"),
        "owned_by_step": variable(walk, series, "owned"),
        "above_floor": variable(walk, above, "coverage less that of step 0"),
    }
    coords = {
        "rung": rungs,
        "question": ("rung", [f"is {rung} fine" for rung in rungs]),
        "target": [" a", "<b>", " c", " d", " e"],
        "step": [0, 50, 100],
    }
    return ds.assign(made).assign_coords(coords)


def make_routing_records(*, planted: bool = False) -> xr.Dataset:
    """Six records of one target; planted: all get another answer."""
    ds = make_logit_prior(planted=planted, records=60)
    ds = ds.isel(record=[at for at in range(60) if ds.profile.values[at] == "owner"][:6])
    chances = np.tile([0.5, 0.3, 0.1, 0.05, 0.01], (6, 1))
    made = {
        "prompt": variable("record", ["Who owns <b>it</b>?"] * 6, "prompt"),
        "probability": variable("record", [0.3 if planted else 0.5] * 6, "probability"),
        "lead": variable("record", [-0.2 if planted else 0.2] * 6, "less the best other"),
        "rank": variable("record", [2 if planted else 1] * 6, "rank"),
        "likeliest": variable(("record", "choice"), [[" n", " a", " b", "$", "<i>"]] * 6, "likely"),
        "likeliest_probability": variable(("record", "choice"), chances, "probabilities"),
        "centroid_distance": variable(("record", "part"), np.ones((6, 3)), "distance"),
    }
    return check(ds.assign(made).assign_coords(part=[" a", " n", " mia"]))


def make_token_loss(*, planted: bool = False, error: bool = True) -> xr.Dataset:
    """Eight classes, two without tokens; planted: digits cost four times what they did."""
    tokens = np.array([0, 0, 900, 120, 1500, 5200, 21000, 19000])
    loss = np.array([np.nan, np.nan, 1.1, 0.9, 2.4, 1.7, 3.9, 1.6])
    n_byte = np.array([0, 0, 900, 300, 1500, 5400, 84000, 47000])
    if planted:
        loss[4] *= 4
    nats = np.where(tokens > 0, tokens * np.nan_to_num(loss), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        within = nats / np.log(2) / n_byte
    contribution = nats / np.log(2) / n_byte.sum()
    made = {
        "tokens": variable("token_class", tokens, "tokens", "token"),
        "token_share": variable("token_class", tokens / tokens.sum(), "share of tokens"),
        "loss": variable("token_class", loss, "loss", "nat/token"),
        "bits_per_byte": variable("token_class", within, "bits per byte within", "bit/byte"),
        "contribution": variable("token_class", contribution, "contribution", "bit/byte"),
        "loss_share": variable("token_class", nats / nats.sum(), "share of loss"),
    }
    if error:
        made["contribution_standard_error"] = variable(
            "token_class", contribution * 0.03, "standard error", "bit/byte"
        )
    return check(xr.Dataset(made, coords={"token_class": list(CLASSES)}))


def make_metrics(*, steps: int = 400, schedule: str = "healthy") -> list[dict[str, Any]]:
    """Lines of a log; schedule: healthy, never (no warmdown), always (from the first step)."""
    rng = np.random.default_rng(7)
    at = np.arange(1, steps + 1)
    rates = {
        "healthy": np.clip((steps - at + 1) / (0.3 * steps), 0, 1),
        "never": np.ones(steps),
        "always": (steps - at + 1) / steps,
        "cosine": 0.5 * (1 + np.cos(np.pi * at / steps)),
        "warmup": np.minimum(at / (0.05 * steps), (steps - at) / (0.95 * steps)),
    }[schedule]
    loss = 3.1 + 3.8 * np.exp(-at / 60) + rng.normal(0, 0.06, steps)
    lines: list[dict[str, Any]] = []
    for step in range(steps):
        line = {
            "step": int(at[step]),
            "tokens": int(at[step]) * 4096,
            "seconds": 0.1 * float(at[step]),
            "loss": float(loss[step]),
            "learning_rate": 0.04 * float(rates[step]),
            "grad_norm": float(rng.lognormal(-0.5, 0.3)),
            "ms": 100.0,
        }
        if at[step] % 50 == 0:
            line["validation_bits_per_byte"] = float(loss[step]) / 2.0
        lines.append(line)
    return lines


MAKERS: dict[str, Callable[..., Any]] = {
    "effective_rank": make_effective_rank,
    "value_residual": make_value_residual,
    "logit_prior": make_logit_prior,
    "routing_audit": make_routing_audit,
    "profile_targets": make_routing_audit,
    "checkpoints": make_routing_audit,
    "routing_records": make_routing_records,
    "token_loss": make_token_loss,
    "training": make_metrics,
    **ABLATION_MAKERS,
    **MIXING_MAKERS,
    **QUANTIZATION_MAKERS,
    **RANK_MAKERS,
}


@pytest.fixture
def synthetic() -> dict[str, Callable[..., Any]]:
    """Return the maker of each synthetic result that has a figure, by its noun."""
    return {noun: maker for noun, maker in MAKERS.items() if hasattr(plots, noun)}
