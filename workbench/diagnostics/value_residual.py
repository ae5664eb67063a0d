"""What each visit takes from an earlier value, and whether it needs it.

Letters: ``B`` rows, ``K`` value heads, ``T`` positions, ``D`` channels of a head.
"""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from workbench.diagnostics.intervention import Intervention
from workbench.diagnostics.mixing import ALPHA, Changes, cost_table, gradient_shares, scalars
from workbench.diagnostics.sample import Diagnostic, Rows, Sample
from workbench.model import Network, record
from workbench.model.value_residual import ValueResidual
from workbench.result import check, variable

IDLE = 0.01  # signed share of the mixed value that is as good as none
MEASURED = {
    "alpha": "learned alpha, before its gate",
    "alpha_effective": "mix applied to the earlier value",
    "contribution": "signed projection of what was mixed in on the mixed value",
    "contribution_share": "share of norms that was mixed in",
    "cosine": "cosine of the earlier value and the visit's own",
    "gradient_share": "share of the alphas' gradient magnitude",
}


def value_residual(models: Mapping[int, Network], rows: Rows) -> xr.Dataset:
    """Follow the value residual over checkpoints.

    The raw alpha cannot be read alone: rescaling the value matrix absorbs it. Read it with
    `contribution`, the share of the mixed value that the earlier one supplies, signed: negative
    means that it is subtracted. The share of norms hides cancellation: a visit whose own value
    takes back what was mixed in has a high share and a projection of 0. Costs are measured at the
    last step, in a trained model, which overstates what a model trained without it would lose.

    Parameters
    ----------
    models : mapping of step to Network
        Kept checkpoints of one run, each with a value residual.
    rows : Rows
        The tokens all checkpoints are measured on; see `Sample.rows`.

    Returns
    -------
    Dataset
        Dims ``step, visit``; NaN at visit 0, which has no earlier value. At the last step, over
        ``visit``: costs of four changes with their paired standard errors (`mixing.COSTS`),
        `death`, the step from which `contribution` stays under 1 % where mixing in nothing costs
        no more than twice its error (NaN: alive), and `decision` with its `reason`.

    Raises
    ------
    ValueError
        If a model has no value residual.
    """
    steps, found = sorted(models), []
    for step in steps:
        model = models[step]
        table, changes = _measure(model, rows)
        found.append(table)
    course = np.pad(found, ((0, 0), (1, 0), (0, 0)), constant_values=np.nan)  # visit 0
    data = {
        name: variable(("step", "visit"), course[..., at], what)
        for at, (name, what) in enumerate(MEASURED.items())
    }
    visits = np.arange(len(model.config.visits))
    costs = cost_table(model, rows, changes=changes, dim="visit").assign_coords(visit=visits[1:])
    costs = costs.reindex(visit=visits, fill_value={"decision": "", "reason": ""})
    nats = np.log(2) * rows.bytes.sum() / len(rows.bytes)  # a token, for a bit a byte
    for name in ("cost", "standard_error"):  # of mixing in nothing, as it was first promised
        zero = costs["zero_cost" if name == "cost" else "zero_cost_standard_error"]
        last = zero.expand_dims(step=steps[-1:]).reindex(step=steps) * nats
        data[f"ablation_{name}"] = variable(last.dims, last, zero.attrs["long_name"], "nat/token")
    idle = np.abs(data["contribution"].values) < IDLE
    since = np.logical_and.accumulate(idle[::-1])[::-1]
    dead = since[-1] & (np.abs(costs.zero_cost) <= 2 * costs.zero_cost_standard_error).values
    when = np.where(dead, np.array(steps)[since.argmax(axis=0)], np.nan)
    data["death"] = variable("visit", when, "step from which nothing is mixed in")
    attrs = asdict(model.value_residual.config) | {"rows": len(rows.inputs)}
    attrs["init_effective"] = initial_mix(model)
    coords = {"step": steps, "block": ("visit", list(model.config.visits))}
    return check(costs.assign(data).assign_coords(coords).assign_attrs(attrs))


def _measure(model: Network, rows: Rows) -> tuple[list[list[float]], Changes]:
    """Measure one checkpoint: a row a visit from 1 on, and what may be changed there."""
    config = model.config.value_residual
    if config is None:
        raise ValueError("this model has no value residual")
    alphas = [each for each in scalars(model) if each.parameter == ALPHA]
    everywhere = range(len(model.config.visits))
    sites = [f"visit.{visit}.{name}" for visit in everywhere for name in ("value_own", "value")]
    with record(model, sites) as seen:
        rows.losses(model)
    raw = model.get_parameter(ALPHA).detach().double().tolist()
    found: list[list[float]] = []
    changes: dict[str, list[Intervention]] = {name: [] for name in ("zero", "own", "mean", "reset")}
    for each, alpha, gradient in zip(
        alphas, raw, gradient_shares(model, rows, alphas), strict=True
    ):
        at, mix = f"visit.{each.visit}.value", float(each.values(model)[0])
        origin = f"visit.{0 if config.source == 'first' else each.visit - 1}.value"
        own, mixed, source = (
            seen[site].transpose(1, 2)[rows.present].double()  # (token, K, D)
            for site in (f"{at}_own", at, origin)
        )
        added = mix * source
        norms = torch.stack([part.norm(dim=-1).mean() for part in (added, mixed - added)])
        cosine = torch.linalg.vecdot(source, own) / (source.norm(dim=-1) * own.norm(dim=-1))
        projection = float((added * mixed).sum() / mixed.square().sum())
        share = float(norms[0] / norms.sum())
        found.append([alpha, mix, projection, share, float(cosine.mean()), gradient])
        mean = (mixed - own).mean(dim=0)[:, None].to(seen[at].dtype)  # (K, 1, D)
        instead = {"zero": seen[f"{at}_own"], "own": mix * seen[origin]}
        for name, value in (instead | {"mean": seen[f"{at}_own"] + mean}).items():
            changes[name].append(_put(at, value))
        changes["reset"].append(each.set_to(model, initial_mix(model)))
    return found, changes


def initial_mix(model: Network) -> float:
    """Return the mix that every visit began with, behind its gate."""
    return float(ValueResidual(model.value_residual.config, 2).effective().detach()[0])


def _put(site: str, tensor: Tensor) -> Intervention:
    """Return the change that puts `tensor` at a site."""
    return Intervention(name=site, edits={site: lambda _: tensor})


def _lacks(sample: Sample) -> str:
    """Say why there is nothing to follow."""
    if sample.model.config.value_residual is None:
        return "the network has no value residual"
    return "" if len(sample.model.config.visits) > 1 else "one block alone has no earlier value"


DIAGNOSTIC = Diagnostic(
    tier="intervention", measure=lambda each: value_residual(each.history, each.rows), lacks=_lacks
)
