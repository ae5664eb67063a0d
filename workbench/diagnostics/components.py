"""Which part of the network wrote a margin: direct attribution, exact in what blocks write.

With what every head and feed-forward wrote taken as given, and the scale of the final norm held
fixed, the last hidden state is linear in these writes, whatever mixes, skips and scales lie
between. So each write's share of a margin is the write times the margin's gradient with respect
to it, and the model itself says how it is wired.

Letters: ``B`` records, ``H`` heads, ``T`` positions, ``C`` channels, ``D`` channels of a head.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from workbench.diagnostics.branch import BranchStates, output_head, padded
from workbench.diagnostics.margin import mean_parts
from workbench.model import Network, record
from workbench.result import check, variable

WRITES = ("embedding", "head_out", "feedforward_out")  # sites that the last stream is made of


def components(
    model: Network, states: BranchStates, explained: xr.Dataset, *, batch: int = 64
) -> xr.Dataset:
    """Split margins by the embedding, every head, every feed-forward and the output bias.

    An attribution, not a cause: what a head wrote was shaped by the writes before it, and the
    final norm would rescale if one were missing.

    Parameters
    ----------
    model : Network
        The model the states come from.
    states : BranchStates
        See `workbench.diagnostics.prediction.chosen_states`.
    explained : Dataset
        `logit_prior` of these states: names each winner and its rival.
    batch : int
        Records in one forward pass.

    Returns
    -------
    Dataset
        Dims ``record, component``: `contribution`, with `mean`, `low`, `high` of `mean_parts`;
        `residual` (margin less the sum of contributions) by record [nat], all before the softcap.
        A component is a site, of heads with its number. Coords `profile`, `group`; attrs
        ``logit_range`` and ``worst_residual`` [nat], ``final_norm``.

    References
    ----------
    Elhage et al., A Mathematical Framework for Transformer Circuits, 2021,
    https://transformer-circuits.pub/2021/framework/index.html
    """
    head = output_head(model)
    winner, rival = explained.winner_id.values, explained.rival_id.values
    direction, bias = head.weight[winner] - head.weight[rival], head.bias[winner] - head.bias[rival]
    parts: dict[str, list[NDArray[np.float64]]] = {}
    for first in range(0, len(winner), batch):
        span = slice(first, first + batch)
        for name, part in _written(model, states.contexts[span], direction[span]).items():
            parts.setdefault(name, []).append(part)
    whole = {name: np.concatenate(part) for name, part in parts.items()} | {"output_bias": bias}
    values = np.column_stack(list(whole.values()))
    residual = (direction * states.hidden).sum(axis=1) + bias - values.sum(axis=1)
    said = ("record", "component")
    data = {
        "contribution": variable(said, values, "part of the margin", "nat"),
        "residual": variable("record", residual, "margin that no part explains", "nat"),
    }
    coords = {name: explained[name] for name in ("record", "group", "profile")}
    attrs = {
        "logit_range": float(np.ptp(states.scores, axis=1).max()),
        "worst_residual": float(np.abs(residual).max()),
        "final_norm": "scale held fixed at its value in each record",
    }
    found = xr.Dataset(data, coords=coords | {"component": list(whole)}, attrs=attrs)
    means = mean_parts(found["contribution"])
    return check(found.assign(means.data_vars).assign_attrs(means.attrs))


def _written(
    model: Network, contexts: Sequence[Sequence[int]], direction: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return each write's part (B,) of the product of last hidden states and `direction` (B, C)."""
    device = model.head_weight.device
    last = torch.tensor([len(ids) - 1 for ids in contexts])
    writes: dict[str, Tensor] = {}

    def given(site: str, tensor: Tensor) -> Tensor:
        writes[site] = tensor.detach().requires_grad_()
        return writes[site]

    sites = [site for site in model.sites() if site.split(".")[-1] in WRITES]
    given_at = {site: partial(given, site) for site in sites}
    with torch.enable_grad(), record(model, ["residual_out"], replace=given_at) as seen:
        final = model.hidden(padded(contexts).to(device))
    at = torch.arange(len(contexts)), last
    stream, hidden = seen["residual_out"][at].double(), final[at].detach().double()
    # The norm as a factor a channel: its scale, and its weight where it has one.
    scale = torch.where(stream == 0, 0.0, hidden / stream).detach()
    margin = (scale * stream * torch.from_numpy(direction).to(device)).sum()
    found: dict[str, NDArray[np.float64]] = {}
    for site, slope in zip(sites, torch.autograd.grad(margin, list(writes.values())), strict=True):
        part = (slope.double() * writes[site].detach().double()).sum(dim=-1)  # (B, T), (B, H, T)
        columns = part.sum(dim=-1).cpu().numpy().T  # (B,), (H, B)
        heads = {f"{site}.{head}": values for head, values in enumerate(columns)}
        found |= heads if part.ndim == 3 else {site: columns}
    return found
