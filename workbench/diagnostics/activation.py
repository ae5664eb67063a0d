"""How many directions the activations of every visit use, from one pass over sampled rows.

Letters: ``R`` sampled rows, ``T`` positions, ``W`` width of a site, ``F`` folds.
"""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

from workbench.diagnostics.sample import Diagnostic
from workbench.diagnostics.spectrum import spectral_ranks
from workbench.diagnostics.sweep import Batch, Reducer
from workbench.model import Network
from workbench.result import check, variable

SITES = {  # role of a matrix: the site that shows its output
    "query": "query",
    "key": "key",
    "value": "value_own",
    "attention_out": "attention_out",
    "feedforward_in": "feedforward_hidden",
    "feedforward_out": "feedforward_out",
    "residual_in": "residual_in",
}
BLOCK = 128  # channels multiplied at once
FOLDS, FOLDED = 8, 1024  # folds of a site at most; width times folds is bounded, for memory
COLUMNS = {
    "activation_rank": "effective rank of centred activations exp(H(sigma))",
    "activation_rank_standard_error": "its standard error over groups, by jackknife",
    "activation_rank_uncentred": "effective rank of activations with their mean",
    "activation_participation": "participation ratio of centred activations",
    "activation_rank_ratio": "effective rank over that of as many Gaussian vectors",
    "width": "channels",
}


def activation(model: Network) -> Reducer:
    """Start measuring the spectra of activations: how many directions each site uses.

    Position 0 is left out: what a network parks there (an attention sink, a massive activation)
    would dominate. Ranks are of singular values, as those of weights in `effective_rank`; compare
    sites by ``activation_rank_ratio``, whose reference of independent Gaussian channels has the
    same width and the same number of vectors, hence the same bias from few of them. The standard
    error is a jackknife over folds of the groups: 8 folds up to 128 channels, 2 at 512, and none
    (NaN) in wider sites, where folds would not fit the memory of a sweep.

    Returns
    -------
    Reducer
        Its result has dims ``visit, role``; ``residual_in`` is the stream, every other role the
        output of its matrix (query and key after norm and rotation). Attr ``tokens``: vectors.
    """
    seen: dict[str, Tensor] = {}  # site: see `_add`
    visits = list(range(len(model.config.visits)))
    roles = {role: site for role, site in SITES.items() if f"visit.0.{site}" in model.sites()}
    places = [[f"visit.{visit}.{site}" for site in roles.values()] for visit in visits]

    def result(_: xr.Dataset) -> xr.Dataset:
        found = np.array([[_ranks(seen[site]) for site in row] for row in places])
        data = {
            name: variable(("visit", "role"), found[..., at], what)
            for at, (name, what) in enumerate(COLUMNS.items())
        }
        coords = {
            "visit": visits,
            "block": ("visit", list(model.config.visits)),
            "role": list(roles),
        }
        n_vector = int(seen[places[0][0]][:, -1, -1].sum())
        attrs = {"tokens": n_vector, "positions": "all but 0"}
        return check(xr.Dataset(data, coords=coords, attrs=attrs))

    sites = {site: partial(_add, seen, site) for row in places for site in row}
    return Reducer(result=result, sites=sites)


def _add(seen: dict[str, Tensor], site: str, tensor: Tensor, batch: Batch) -> None:
    """Add to ``seen[site]`` (F, W + 1, W + 1) float64: products of vectors ending in a 1.

    The last column of a fold is thus the sum of its vectors, and its last entry their number. Only
    what is on and above the diagonal is sure to be there.
    """
    vectors = tensor if tensor.ndim == 3 else tensor.transpose(1, 2).flatten(2)  # (R, T, W)
    size = vectors.shape[-1] + 1
    if site not in seen:
        folds = max(1, min(FOLDS, FOLDED // (size - 1)))
        seen[site] = torch.zeros(folds, size, size, dtype=torch.float64, device=tensor.device)
    fold_of = batch.group % len(seen[site])
    for fold in np.unique(fold_of):
        rows = torch.from_numpy(fold_of == fold).to(tensor.device)
        kept = vectors[rows, 1:][batch.present[rows, 1:]].double()  # (token, W)
        kept = F.pad(kept, (0, 1), value=1.0)
        for at in range(0, size, BLOCK):  # blocks on and above the diagonal
            seen[site][fold, at : at + BLOCK, at:].addmm_(kept[:, at : at + BLOCK].mT, kept[:, at:])


def _ranks(sums: Tensor) -> list[float]:
    """Reduce the sums of a site to one value a column."""
    filled = sums[sums[:, -1, -1] > 0]
    whole = filled.sum(dim=0, keepdim=True)
    without = whole - filled if len(filled) > 1 else filled[:0]
    scatter = torch.cat([whole, without])  # (1 + F, W + 1, W + 1)
    count, total = scatter[:, -1, -1], scatter[:, :-1, -1]
    width = total.shape[1]
    if not torch.isfinite(scatter).all() or not (count > 1).all():
        return [*[np.nan] * (len(COLUMNS) - 1), width]
    product = scatter[:, :-1, :-1]
    centred = product - total[:, :, None] * total[:, None] / count[:, None, None]
    energy = torch.linalg.eigvalsh(torch.cat([centred, product[:1]]), UPLO="U").flip(-1)
    # What subtracting its mean leaves of a constant is rounding, not a direction.
    energy = energy.where(energy > 1e-14 * energy[-1].sum(), 0)
    ranks = [spectral_ranks(each, tolerance=0) for each in energy.sqrt().cpu().numpy()]
    rank, *left, uncentred = [each["effective_rank"] for each in ranks]
    error = float(np.std(left) * np.sqrt(len(left) - 1)) if left else np.nan
    ratio = rank / chance_rank(int(count[0]) - 1, width)
    return [rank, error, uncentred, ranks[0]["participation_ratio"], ratio, width]


def chance_rank(count: int, width: int) -> float:
    """Return the effective rank of `count` Gaussian vectors of independent channels.

    It is that of the Marchenko-Pastur law, exact in the limit of large shapes and within 2 % from
    16 channels on.

    References
    ----------
    .. [1] Marchenko and Pastur, Distribution of eigenvalues for some sets of random matrices, 1967.

    Examples
    --------
    >>> round(chance_rank(1024, 256), 1)
    247.4
    """
    few, many = sorted((count, width))
    angle = (np.arange(2048) + 0.5) * np.pi / 2048
    energy = 1 + few / many + 2 * np.sqrt(few / many) * np.cos(angle)
    sigma = np.sqrt(energy)
    share = np.sin(angle) ** 2 / sigma  # of the sum of singular values
    mean = np.average(sigma, weights=np.sin(angle) ** 2 / energy)
    return float(few * mean * np.exp(-np.average(np.log(sigma), weights=share)))


DIAGNOSTIC = Diagnostic(tier="pass", start=lambda sample: activation(sample.model))
