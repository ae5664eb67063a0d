"""Whether a tied matrix is pulled one way as input embedding and another as output head."""

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

from workbench.diagnostics.sample import Diagnostic, Rows, Sample
from workbench.model import Network
from workbench.result import check, variable
from workbench.text import IGNORED

FOLDS = 4  # of the groups, for the standard error


def role_conflict(model: Network, rows: Rows) -> xr.Dataset:
    """Compare the gradients that reach a tied matrix through its two roles.

    The trunk and the head are differentiated one after the other, in one backward pass. A cosine
    near 0 says that the roles ask for unrelated changes; well below 0, that they undo each other's
    work and an untied head (or a factored one) might pay. It is a property of these weights on
    this text, not an experiment: untie and train to know.

    Parameters
    ----------
    model : Network
        With tied embeddings; left as it was found.
    rows : Rows
        See `Sample.rows`.

    Returns
    -------
    Dataset
        `cosine` with its standard error (jackknife over folds of groups), `embedding_share` of the
        summed norms; per token of the ``vocabulary``: `token_cosine`, `embedding_norm` and
        `head_norm` [nat/token], NaN where a token has no gradient.
    """
    scored = (rows.targets >= 0).sum(dim=-1).cpu().numpy()
    first = np.minimum(np.cumsum(scored) - scored, len(rows.group) - 1)
    fold = rows.group[first] % FOLDS  # of each row
    chosen = [fold == each for each in np.unique(fold)]
    folds = [_gradients(model, rows.inputs[at], rows.targets[at]) for at in chosen]
    parts = torch.stack(folds)  # (F, 2, V, C)
    whole = parts.sum(dim=0)
    without = [_cosine(whole - part) for part in parts] if len(parts) > 1 else [np.nan]
    norms = whole.norm(dim=-1) / scored.sum()
    shares = whole.norm(dim=(1, 2)) / whole.norm(dim=(1, 2)).sum()
    error = np.std(without) * np.sqrt(len(without) - 1) if len(parts) > 1 else np.nan
    by_token = (whole[0] * whole[1]).sum(-1) / whole.norm(dim=-1).prod(0)
    data = {
        "cosine": variable((), _cosine(whole), "cosine of the gradients as embedding and as head"),
        "cosine_standard_error": variable((), error, "standard error of cosine"),
        "embedding_share": variable((), float(shares[0]), "share of the embedding in the norms"),
        "token_cosine": variable("vocabulary", by_token, "cosine of a token"),
    }
    for role, norm in zip(("embedding", "head"), norms, strict=True):
        told = f"norm of a token's gradient as {role}"
        data[f"{role}_norm"] = variable("vocabulary", norm.cpu(), told, "nat/token")
    return check(xr.Dataset(data, attrs={"tokens": int(scored.sum()), "rows": len(scored)}))


def _gradients(model: Network, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the gradients of the summed loss as embedding and as head, (2, V, C) float64."""
    hidden = model.hidden(inputs)
    cut = hidden.detach().requires_grad_()
    logits = model.head(cut).float().flatten(0, 1)
    loss = F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="sum")
    weight = model.head_weight
    as_head, above = torch.autograd.grad(loss, (weight, cut))
    (as_embedding,) = torch.autograd.grad(hidden, weight, above)
    return torch.stack([as_embedding, as_head]).double()


def _cosine(pair: Tensor) -> float:
    """Return the cosine of two gradients (2, V, C); NaN where one vanishes."""
    flat = pair.flatten(1)
    return float(flat[0] @ flat[1] / (flat[0].norm() * flat[1].norm()))


def _lacks(sample: Sample) -> str:
    """Say why there is nothing to compare."""
    return "" if sample.model.config.tie_embeddings else "embedding and head are not tied"


DIAGNOSTIC = Diagnostic(
    tier="backward",
    measure=lambda each: role_conflict(each.model, each.rows),
    lacks=_lacks,
    sites=("final_norm",),
)
