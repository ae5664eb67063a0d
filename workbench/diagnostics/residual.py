"""The residual stream: how much each visit writes, what stands out in it, and which units idle.

Letters: ``R`` sampled rows, ``T`` positions, ``C`` channels, ``F`` feed-forward units.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from workbench.diagnostics.grouped import GroupedMeans
from workbench.diagnostics.sample import Diagnostic
from workbench.diagnostics.sweep import Batch, Reducer
from workbench.model import Network
from workbench.result import check, variable

ROLES = ("residual_in", "attention_out", "feedforward_out")
SATURATED = 0.9  # of the softcap
MEDIANS = 128  # positions of a row that `outlier` is taken at, evenly spaced
STREAM = {
    "norm": "root mean square over channels",
    "kurtosis": "kurtosis over channels, Gaussian 3",
    "outlier": "largest magnitude over the median one of a token",
    "write_share": "norm of a write over that of the stream it is added to",
}
VISIT = {
    "growth": "norm of the stream after a visit over before",
    "zero_share": "share of feed-forward hidden values that are zero",
}
SOFTCAP = {
    "softcap_logit_share": "share of logits beyond 0.9 of the softcap",
    "softcap_token_share": "share of positions with a logit beyond 0.9 of the softcap",
}
PEAK = ("", "_ratio", "_position", "_channel")


def residual(model: Network) -> Reducer:
    """Start measuring the stream, what is written into it, and feed-forward and softcap at work.

    A stream that grows with depth is what networks with norms before their parts do, and a squared
    ReLU leaves up to nine in ten hidden values at zero: neither is a fault. A part that writes
    next to nothing, units that no token activates, or logits at the cap may be.

    Returns
    -------
    Reducer
        Its result has, over ``visit, role``, means over positions from 1: `norm`, `kurtosis`,
        `outlier`, `write_share` (not of the stream itself), and the largest magnitude of all
        positions: `peak`, `peak_ratio` (over the median of its token), `peak_position`,
        `peak_channel`; over ``visit``: `growth`, `zero_share`, and `dead_share` of units never
        active; and, where there is a cap, `softcap_logit_share`, `softcap_token_share`. Means
        have their standard error
        over groups. Attr ``tokens``.
    """
    visits = range(len(model.config.visits))
    sums = _Sums(model.config.visits, model.config.softcap)
    sites = {f"visit.{v}.feedforward_hidden": partial(sums.take_hidden, v) for v in visits}
    for role, site in enumerate(ROLES):
        sites |= {f"visit.{v}.{site}": partial(sums.take_stream, v, role) for v in visits}
    return Reducer(result=sums.result, update=sums.update, sites=sites)


class _Sums:
    """What is kept of a pass."""

    def __init__(self, blocks: Sequence[int], cap: float | None) -> None:
        self.cap, self.blocks, n_visit = cap, list(blocks), len(blocks)
        self.streams, self.capped = GroupedMeans(STREAM, n_visit, len(ROLES)), GroupedMeans(SOFTCAP)
        self.each_visit = GroupedMeans(VISIT, n_visit)
        self.peak = np.full((len(PEAK), n_visit, len(ROLES)), np.nan)
        self.active = [torch.tensor(False)] * n_visit  # each (F,)
        self.held: dict[str, Tensor] = {}  # the stream within a visit

    def take_stream(self, visit: int, role: int, x: Tensor, batch: Batch) -> None:
        """Observe the stream as a visit finds it, or one of the two writes into it."""
        later, size, norm = _later(batch), x.abs(), _norm(x)
        kurtosis = x.square().square().mean(dim=-1) / norm.pow(4)
        largest = size.amax(dim=-1).where(batch.present, 0)
        some = slice(None, None, -(-x.shape[1] // MEDIANS))
        ratio = largest[:, some] / size[:, some].median(dim=-1).values
        self.streams.add(
            torch.stack([norm, kurtosis]), later, batch.group, at=(slice(2), visit, role)
        )
        self.streams.add(ratio, later[:, some], batch.group, at=(2, visit, role))
        if not role:
            self.held["before"] = self.held["stream"] = x
        else:
            share = norm / _norm(self.held["stream"])
            self.streams.add(share, later, batch.group, at=(3, visit, role))
            self.held["stream"] = self.held["stream"] + x
        if role == len(ROLES) - 1:
            growth = _norm(self.held.pop("stream")) / _norm(self.held.pop("before"))
            self.each_visit.add(growth, later, batch.group, at=(0, visit))
        top = float(largest.max())
        if not self.peak[0, visit, role] >= top:
            row, position = divmod(int(largest.argmax()), largest.shape[1])
            token = size[row, position]
            place = float(top / token.median()), position, int(token.argmax())
            self.peak[:, visit, role] = top, *place

    def take_hidden(self, visit: int, x: Tensor, batch: Batch) -> None:
        """Observe which feed-forward units are at work."""
        used = (x != 0).to(x.dtype)
        self.each_visit.add(1 - used.mean(dim=-1), _later(batch), batch.group, at=(1, visit))
        ever = used[batch.present].amax(dim=0) > 0
        self.active[visit] = self.active[visit].to(ever.device) | ever

    def update(self, batch: Batch) -> None:
        """Count logits near the cap."""
        if self.cap is None:
            return
        beyond = (batch.logits[torch.from_numpy(batch.rows)].abs() > SATURATED * self.cap).float()
        told = torch.stack([beyond.mean(dim=-1), beyond.amax(dim=-1)])
        self.capped.add(told, _later(batch), batch.group)

    def result(self, _: xr.Dataset) -> xr.Dataset:
        """Label everything."""
        data = self.streams.variables("visit", "role") | self.each_visit.variables("visit")
        data |= self.capped.variables() if self.cap is not None else {}
        for values, ending in zip(self.peak, PEAK, strict=True):
            told = f"largest magnitude{ending.replace('_', ', its ')}"
            data[f"peak{ending}"] = variable(("visit", "role"), values, told)
        dead = [1 - float(each.double().mean()) for each in self.active]
        data["dead_share"] = variable("visit", dead, "share of hidden units never active")
        visits = np.arange(len(self.blocks))
        coords = {"visit": visits, "block": ("visit", self.blocks), "role": list(ROLES)}
        attrs = {"tokens": int(self.each_visit.count[0, 0])}
        return check(xr.Dataset(data, coords=coords, attrs=attrs))


def _norm(x: Tensor) -> Tensor:
    """Return the root mean square over channels."""
    return x.square().mean(dim=-1).sqrt()


def _later(batch: Batch) -> Tensor:
    """Mark the positions present (R, T) but the first."""
    return batch.present & (torch.arange(batch.present.shape[1], device=batch.present.device) > 0)


DIAGNOSTIC = Diagnostic(tier="pass", start=lambda sample: residual(sample.model))
