"""Where every head looks: how spread its attention is, and how much goes to telling places.

Letters: ``R`` sampled rows, ``H`` heads, ``K`` key heads, ``Q`` queries of a row, ``T`` positions,
``D`` channels of a head.
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

from workbench.diagnostics.grouped import GroupedMeans
from workbench.diagnostics.sample import Diagnostic
from workbench.diagnostics.sweep import Batch, Reducer
from workbench.model import Network
from workbench.result import check

QUERIES = 128  # of a row, evenly spaced
MEASURES = {
    "entropy": "entropy over that of even attention to the keys a query can see",
    "sink": "attention to the first key",
    "previous": "attention to the token before",
    "largest": "attention to the key that gets most",
    "same_word": "attention to earlier tokens equal to the query's, where there are any",
}


def attention(model: Network) -> Reducer:
    """Start measuring where heads look, from queries and keys, one row at a time.

    A low entropy alone is no focus: a head that parks its attention on the first key has one too,
    and is doing nothing there. Read it beside `sink`. Attention says where a head reads, not what
    that does: a head's cost when ablated does.

    Returns
    -------
    Reducer
        Its result has dims ``visit, head``: five means over queries from position 1, at most 128
        evenly spaced ones a row, each with its standard error over groups. Attrs: ``queries``,
        ``repeats`` (those of them with an equal token before), and ``even_`` with the name of each
        measure: what even attention would show on these queries.
    """
    n_visit, n_head = len(model.config.visits), model.config.n_head
    means = GroupedMeans(MEASURES, n_visit, n_head + 1)  # the last head attends evenly
    held: dict[int, Tensor] = {}

    def hold(visit: int, query: Tensor, _: Batch) -> None:
        held[visit] = query

    def take(visit: int, key: Tensor, batch: Batch) -> None:
        query = held.pop(visit)
        for row, present in enumerate(batch.present):
            ids = batch.inputs[row, present]
            at = torch.arange(1, len(ids), max(1, -(-len(ids) // QUERIES)), device=ids.device)
            same = (ids == ids[at, None]) & (
                torch.arange(len(ids), device=ids.device) < at[:, None]
            )
            measured = _look(query[row][:, at], key[row, :, : len(ids)], at, same)
            keep = torch.ones(len(MEASURES), 1, 1, len(at), dtype=torch.bool, device=ids.device)
            keep[-1] = same.any(dim=-1)
            group = batch.group[row : row + 1]
            means.add(measured[:, :, None], keep, group, at=(slice(None), visit))

    def result(_: xr.Dataset) -> xr.Dataset:
        visits = np.arange(n_visit)
        coords = {
            "visit": visits,
            "block": ("visit", list(model.config.visits)),
            "head": np.arange(n_head + 1),
        }
        found = xr.Dataset(means.variables("visit", "head"), coords=coords)
        count = means.count[:, 0, 0]
        attrs = {"queries": float(count[0]), "repeats": float(count[-1])}
        even = found.isel(visit=0, head=-1)
        attrs |= {f"even_{name}": float(even[name]) for name in MEASURES}
        return check(found.isel(head=slice(-1)).assign_attrs(attrs))

    visits = range(n_visit)
    sites = {f"visit.{visit}.query": partial(hold, visit) for visit in visits}
    sites |= {f"visit.{visit}.key": partial(take, visit) for visit in visits}
    return Reducer(result=result, sites=sites)


def _look(query: Tensor, key: Tensor, at: Tensor, same: Tensor) -> Tensor:
    """Measure the attention of queries (H, Q, D) at positions (Q,) over keys (K, T, D).

    `same` (Q, T) marks the earlier keys of the query's own token. Returns (measure, H + 1, Q);
    the last head attends evenly.
    """
    grouped = query.unflatten(0, (len(key), -1)).flatten(1, 2)  # (K, H / K * Q, D)
    scores = (grouped @ key.mT).view(*query.shape[:2], -1) * query.shape[-1] ** -0.5
    scores = F.pad(scores, (0, 0, 0, 0, 0, 1))  # (H + 1, Q, T)
    scores.masked_fill_(torch.arange(key.shape[1], device=at.device) > at[:, None], -torch.inf)
    share = scores.softmax(dim=-1)
    entropy = torch.special.entr(share).sum(dim=-1) / torch.log(at + 1)
    previous = share.gather(-1, (at - 1).expand(len(share), -1)[..., None])[..., 0]
    repeated = torch.einsum("hqt,qt->hq", share, same.to(share.dtype))
    return torch.stack([entropy, share[..., 0], previous, share.amax(dim=-1), repeated])


DIAGNOSTIC = Diagnostic(tier="pass", start=lambda sample: attention(sample.model))
