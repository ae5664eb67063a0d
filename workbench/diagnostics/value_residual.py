"""What each visit takes from an earlier value, and whether it needs it.

Letters: ``B`` rows, ``K`` value heads, ``T`` positions, ``D`` channels of a head.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from workbench.diagnostics.sample import Diagnostic, Rows, Sample
from workbench.evaluation import ratio_error
from workbench.model import Network, record
from workbench.result import check, variable
from workbench.training import next_token_loss


def value_residual(models: Mapping[int, Network], rows: Rows) -> xr.Dataset:
    """Follow the value residual over checkpoints.

    The raw alpha cannot be read alone: rescaling the value matrix absorbs it. Read it with
    `contribution`, the share of the mixed value that the earlier one supplies, signed: negative
    means that it is subtracted. `ablation_cost` sets the mix to 0 in a trained model, which
    overstates what a model trained without it would lose; it is measured at the last step only.

    Parameters
    ----------
    models : mapping of step to Network
        Kept checkpoints of one run, each with a value residual.
    rows : Rows
        The tokens all checkpoints are measured on; see `Sample.rows`.

    Returns
    -------
    Dataset
        Dims ``step, visit``; NaN at visit 0, which has no earlier value.

    Raises
    ------
    ValueError
        If a model has no value residual.
    """
    steps = sorted(models)
    found = [_measure(models[step], rows, ablate=step == steps[-1]) for step in steps]
    names = {
        "alpha": "learned alpha, before its gate",
        "alpha_effective": "mix applied to the earlier value",
        "contribution": "signed projection of what was mixed in on the mixed value",
        "contribution_share": "share of norms that was mixed in",
        "cosine": "cosine of the earlier value and the visit's own",
        "gradient_share": "share of the alphas' gradient magnitude",
    }
    data = {
        key: variable(("step", "visit"), np.stack([each[key] for each in found]), what)
        for key, what in names.items()
    }
    data |= {
        key: variable(("step", "visit"), np.stack([each[key] for each in found]), what, "nat/token")
        for key, what in {
            "ablation_cost": "loss added by mixing in nothing",
            "ablation_standard_error": "its standard error over groups",
        }.items()
    }
    visits = np.arange(models[steps[0]].config.n_layer)
    coords = {"step": steps, "visit": visits, "block": ("visit", visits)}
    config = models[steps[0]].config.value_residual
    attrs = {"rows": len(rows.inputs)} | (asdict(config) if config else {})
    return check(xr.Dataset(data, coords=coords, attrs=attrs))


def _measure(model: Network, rows: Rows, *, ablate: bool) -> dict[str, NDArray[np.float64]]:
    """Measure one checkpoint; every entry is (visit,) with NaN first."""
    config = model.config.value_residual
    if config is None:
        raise ValueError("this model has no value residual")
    visits = range(1, model.config.n_layer)
    alpha = model.value_residual.alpha.detach().double()
    effective = model.value_residual.effective().detach().double()
    sites = [
        f"visit.{v}.{name}" for v in range(model.config.n_layer) for name in ("value_own", "value")
    ]
    with torch.no_grad(), record(model, sites) as seen:
        base = rows.losses(model)
    columns: dict[str, list[float]] = {
        "alpha": alpha.tolist(),
        "alpha_effective": effective.tolist(),
        "contribution": [],
        "contribution_share": [],
        "cosine": [],
        "gradient_share": _gradient_share(model, rows),
        "ablation_cost": [],
        "ablation_standard_error": [],
    }
    for visit in visits:
        origin = 0 if config.source == "first" else visit - 1
        own, mixed, source = (
            seen[site].transpose(1, 2)[rows.present].double()  # (token, K, D)
            for site in (
                f"visit.{visit}.value_own",
                f"visit.{visit}.value",
                f"visit.{origin}.value",
            )
        )
        added = effective[visit - 1] * source
        columns["contribution"].append(float((added * mixed).sum() / mixed.square().sum()))
        norms = [part.norm(dim=-1).mean() for part in (added, mixed - added)]
        columns["contribution_share"].append(float(norms[0] / (norms[0] + norms[1])))
        cosine = (source * own).sum(dim=-1) / (source.norm(dim=-1) * own.norm(dim=-1))
        columns["cosine"].append(float(cosine.mean()))
        if not ablate:
            columns["ablation_cost"].append(np.nan)
            columns["ablation_standard_error"].append(np.nan)
            continue
        alone = {f"visit.{visit}.value": _always(seen[f"visit.{visit}.value_own"])}
        with torch.no_grad(), record(model, replace=alone):
            cost = rows.losses(model) - base
        error = ratio_error(cost, np.ones_like(cost), rows.group)
        columns["ablation_cost"].append(float(cost.mean()))
        columns["ablation_standard_error"].append(np.nan if error is None else error)
    return {name: np.array([np.nan, *values]) for name, values in columns.items()}


def _always(tensor: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a site edit that puts `tensor` there."""
    return lambda _: tensor


def _gradient_share(model: Network, rows: Rows) -> list[float]:
    """Return each alpha's share of the summed gradient magnitude; NaN when all are 0."""
    alpha = model.value_residual.alpha
    required = alpha.requires_grad
    alpha.requires_grad_(True)
    (gradient,) = torch.autograd.grad(next_token_loss(model, rows.inputs, rows.targets), alpha)
    alpha.requires_grad_(required)
    magnitude = gradient.double().abs()
    total = float(magnitude.sum())
    if total == 0:
        return [float("nan")] * len(magnitude)
    return [float(value) / total for value in magnitude]


def _of_sample(sample: Sample) -> xr.Dataset:
    """Follow the value residual over the kept checkpoints."""
    return value_residual(sample.checkpoints or {sample.step: sample.model}, sample.rows)


def _lacks(sample: Sample) -> str:
    """Say why there is nothing to follow."""
    if sample.model.config.value_residual is None:
        return "the network has no value residual"
    return "" if sample.model.config.n_layer > 1 else "one block alone has no earlier value"


DIAGNOSTIC = Diagnostic(tier="intervention", measure=_of_sample, lacks=_lacks)
