"""What a change costs: run a model with sites or parameters changed, on tokens kept in memory.

An intervention is causal where attribution is not, but it is made on a network that was trained
with the part in place: what ablation costs overstates what a network trained without it would.

Letters: ``B`` rows, ``H`` heads, ``T`` positions, ``C`` channels, ``D`` channels of a head.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from workbench.diagnostics.sample import Rows
from workbench.evaluation import ratio_error
from workbench.model import Network, record
from workbench.result import check, variable
from workbench.text import TOKEN_CLASSES

Edit = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """A named change: other tensors at sites, or other parameters of the same shape."""

    name: str
    edits: Mapping[str, Edit] = field(default_factory=dict)  # site: what to go on with
    parameters: Mapping[str, Tensor] = field(default_factory=dict)  # key name: value


def scaled(site: str, factor: float, *, head: int | None = None) -> Intervention:
    """Multiply what passes a site, or one head (dim 1) of it; 0 is ablation to zero."""

    def edit(tensor: Tensor) -> Tensor:
        if head is None:
            return tensor * factor
        tensor = tensor.clone()
        tensor[:, head] *= factor
        return tensor

    named = site if head is None else f"{site}.{head}"
    return Intervention(name=f"{named} x {factor:g}", edits={site: edit})


def fixed(site: str, mean: Tensor, *, head: int | None = None) -> Intervention:
    """Put a mean in place of what passes a site, or one head (dim 1) of it: mean ablation."""

    def edit(tensor: Tensor) -> Tensor:
        if head is None:
            return mean.to(tensor.dtype).expand_as(tensor)
        tensor = tensor.clone()
        tensor[:, head] = mean[head].to(tensor.dtype)
        return tensor

    named = site if head is None else f"{site}.{head}"
    return Intervention(name=f"{named} to its mean", edits={site: edit})


def together(name: str, interventions: Iterable[Intervention]) -> Intervention:
    """Join interventions at different places into one."""
    edits: dict[str, Edit] = {}
    parameters: dict[str, Tensor] = {}
    for each in interventions:
        edits |= each.edits
        parameters |= each.parameters
    return Intervention(name=name, edits=edits, parameters=parameters)


def site_means(model: Network, rows: Rows, sites: Iterable[str]) -> dict[str, Tensor]:
    """Average sites over rows and present positions.

    Returns
    -------
    dict of str to tensor
        (C,) of a site (B, T, C); (H, 1, D) of a site (B, H, T, D).
    """
    wanted = list(sites)
    found: dict[str, Tensor] = {}

    def take(site: str) -> Edit:
        def observe(tensor: Tensor) -> Tensor:
            if tensor.ndim == 3:
                found[site] = tensor[rows.present].double().mean(dim=0)
            else:
                kept = tensor.transpose(1, 2)[rows.present].double()  # (token, H, D)
                found[site] = kept.mean(dim=0)[:, None]
            return tensor

        return observe

    with torch.inference_mode(), record(model, replace={site: take(site) for site in wanted}):
        model(rows.inputs)
    return found


def losses_under(model: Network, rows: Rows, change: Intervention) -> NDArray[np.float64]:
    """Return the loss of each scored target under an intervention, (target,) [nat]."""
    counted = rows.targets >= 0
    with torch.inference_mode(), record(model, replace=change.edits):
        logits = functional_call(model, dict(change.parameters), (rows.inputs,))
        log_p = torch.log_softmax(logits[counted].float(), dim=-1)
        picked = log_p.gather(-1, rows.targets[counted][:, None])[:, 0]
    losses: NDArray[np.float64] = -picked.double().cpu().numpy()
    return losses


def intervention_cost(
    model: Network,
    rows: Rows,
    interventions: Sequence[Intervention],
    *,
    base: NDArray[np.float64] | None = None,
) -> xr.Dataset:
    """Measure what interventions add to bits per byte, in all and by class of the target token.

    Every difference is paired: the same tokens with and without. Its standard error is over
    documents (or the facts of a closed world), so it covers the choice of text and not the seed.

    Parameters
    ----------
    model : Network
        Left as it was found.
    rows : Rows
        See `Sample.rows`.
    interventions : sequence of Intervention
    base : (target,) float64, optional
        ``rows.losses(model)``, where it is known already.

    Returns
    -------
    Dataset
        Dims ``intervention, token_class``: `cost` and `cost_standard_error` [bit/byte];
        `cost_by_class` [bit/byte], which sums to `cost`.
    """
    before = rows.losses(model) if base is None else base
    n_class, size = len(TOKEN_CLASSES), rows.bytes.sum()
    cost, error = np.empty(len(interventions)), np.full(len(interventions), np.nan)
    by_class = np.empty((len(interventions), n_class))
    for at, change in enumerate(interventions):
        bits = (losses_under(model, rows, change) - before) / np.log(2)
        cost[at] = bits.sum() / size
        spread = ratio_error(bits, rows.bytes, rows.group)
        error[at] = np.nan if spread is None else spread
        by_class[at] = np.bincount(rows.token_class, weights=bits, minlength=n_class) / size
    return check(
        xr.Dataset(
            {
                "cost": variable("intervention", cost, "bits per byte added", "bit/byte"),
                "cost_standard_error": variable(
                    "intervention", error, "its paired standard error", "bit/byte"
                ),
                "cost_by_class": variable(
                    ("intervention", "token_class"), by_class, "bits per byte added", "bit/byte"
                ),
            },
            coords={
                "intervention": [each.name for each in interventions],
                "token_class": list(TOKEN_CLASSES),
            },
            attrs={"tokens": len(rows.bytes), "rows": len(rows.inputs)},
        )
    )
