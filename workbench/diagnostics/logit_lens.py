"""What the model would predict if it stopped after each visit.

Letters: ``R`` sampled rows, ``T`` positions, ``N`` sampled targets of a row, ``C`` channels,
``V`` vocabulary.
"""

from functools import partial

import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

from workbench.diagnostics.grouped import GroupedMeans
from workbench.diagnostics.sample import Diagnostic
from workbench.diagnostics.sweep import Batch, Reducer
from workbench.model import Network
from workbench.result import check, variable

EVERY = 4  # of so many targets of a sampled row one is measured
QUARTILES = {"rank_low": 0.25, "rank_median": 0.5, "rank_high": 0.75}

MEANS = {
    "loss": "loss after a visit",
    "first": "share of targets at rank 1",
    "gain": "loss after the visit before minus after this one",
}


def logit_lens(model: Network) -> Reducer:
    """Start reading the stream after every visit through the final norm and the output head.

    The norm is applied anew at each visit, with that visit's own scale; the last visit is the
    model itself. The head was trained on the last stream alone, so a high rank earlier may mean
    that a visit keeps the answer in another form, not that it lacks it.

    Returns
    -------
    Reducer
        Its result has dim ``visit``: `rank_median`, `rank_low`, `rank_high` (quartiles of the
        target's rank, 1 is best), `loss` [nat/token], `first` (share of targets at rank 1) and
        `gain` [nat/token], the fall of the loss of the same targets since the visit before (NaN at
        the first), with their standard errors over groups. Attrs: ``tokens``, ``vocabulary``.

    References
    ----------
    nostalgebraist, Interpreting GPT: the logit lens, 2020.
    """
    visits, size = range(len(model.config.visits)), len(model.head_weight)
    counts = torch.zeros(len(visits), size + 1, dtype=torch.long)
    means = GroupedMeans(MEANS, len(visits))
    stream: dict[int, Tensor] = {}  # of visits that have begun
    before: dict[int, Tensor] = {}  # by row of this batch, losses after the visit before

    def take(visit: int, tensor: Tensor, batch: Batch) -> None:
        stream[visit] = stream[visit] + tensor if visit in stream else tensor

    def end(visit: int, tensor: Tensor, batch: Batch) -> None:
        out = stream.pop(visit) + tensor  # (R, T, C)
        targets = torch.from_numpy(batch.window.targets[batch.rows]).to(out.device)
        for row, due in enumerate(targets):
            at = torch.nonzero(due >= 0)[::EVERY, 0]
            logits = _logits(model, out[row, at])
            rank = 1 + (logits > logits.gather(1, due[at, None])).sum(dim=-1)
            counts[visit] += torch.bincount(rank, minlength=size + 1).cpu()
            loss = F.cross_entropy(logits, due[at], reduction="none")
            gain = before[row] - loss if visit else loss * 0
            before[row] = loss
            told = torch.stack([loss, (rank == 1).to(loss), gain])[:, None]
            keep = torch.ones_like(told, dtype=torch.bool)
            keep[2] = visit > 0
            group = batch.group[row : row + 1]
            means.add(told, keep, group, at=(slice(None), visit))

    def result(_: xr.Dataset) -> xr.Dataset:
        below = counts.cumsum(dim=1).numpy() / counts.sum(dim=1, keepdim=True).numpy()
        data = {
            name: variable("visit", (below < share).sum(axis=1), f"rank of the target: {share:.0%}")
            for name, share in QUARTILES.items()
        }
        data |= means.variables("visit")
        for name in ("loss", "gain"):
            data[f"{name}_standard_error"].attrs["units"] = "nat/token"
            data[name].attrs["units"] = "nat/token"
        coords = {"visit": list(visits), "block": ("visit", list(model.config.visits))}
        attrs = {"tokens": int(counts[0].sum()), "vocabulary": size}
        return check(xr.Dataset(data, coords=coords, attrs=attrs))

    takers = {"residual_in": take, "attention_out": take, "feedforward_out": end}
    sites = {f"visit.{v}.{site}": partial(f, v) for v in visits for site, f in takers.items()}
    return Reducer(result=result, sites=sites)


def _logits(model: Network, stream: Tensor) -> Tensor:
    """Turn the stream (N, C) into logits (N, V); `Network.head` would pass the site ``logits``."""
    z = F.linear(model.final_norm(stream), model.head_weight.to(stream.dtype)).float()
    if model.output_bias is not None:
        z = z + model.output_bias.float()
    return model.capped(z)


DIAGNOSTIC = Diagnostic(
    tier="pass", start=lambda sample: logit_lens(sample.model), sites=("final_norm",)
)
