"""Effective rank of every weight matrix, beside a random matrix of the same shape."""

from functools import lru_cache

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from workbench.diagnostics.sample import Diagnostic, Sample
from workbench.model import Network
from workbench.result import check, variable

GAUSSIAN_DRAWS = 3  # the mean of a few draws moves by less than 1 % of a rank


def singular_values(weight: Tensor) -> NDArray[np.float64]:
    """Return the singular values, largest first.

    They are the roots of the eigenvalues of the smaller Gram matrix in float64, several times
    cheaper than a decomposition of the matrix. Squaring loses the small ones when the condition
    number passes about 1e6, so such a matrix is decomposed itself.

    Parameters
    ----------
    weight : (rows, columns) tensor

    Returns
    -------
    (min(rows, columns),) float64
        All NaN when an entry is not finite.
    """
    matrix = weight.detach().double()
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.mT
    if not torch.isfinite(matrix).all():
        return np.full(matrix.shape[0], np.nan)
    energy = torch.linalg.eigvalsh(matrix @ matrix.mT).flip(0)
    if energy[-1] <= 1e-12 * energy[0]:
        return torch.linalg.svdvals(matrix).cpu().numpy()
    return energy.sqrt().cpu().numpy()


def spectral_ranks(sigma: NDArray[np.float64], *, tolerance: float) -> dict[str, float]:
    """Reduce singular values to the numbers that the literature calls rank.

    They are Renyi entropies of two distributions: ``p = sigma / sum(sigma)`` and
    ``q = sigma**2 / sum(sigma**2)``. Always
    ``stable <= participation <= energy <= effective <= size``.

    Parameters
    ----------
    sigma : (singular,) float64
        Largest first.
    tolerance : float
        Values at or below ``tolerance * sigma[0]`` do not count towards the numerical rank.

    Returns
    -------
    dict
        ``effective_rank`` exp(H(p)), ``effective_rank_energy`` exp(H(q)),
        ``participation_ratio`` 1 / sum(q**2), ``stable_rank`` 1 / max(q), ``numerical_rank``,
        ``condition_number``. All but the numerical rank are NaN for a matrix of zeros, and all
        for singular values that are NaN.

    References
    ----------
    .. [1] Roy and Vetterli, The effective rank, EUSIPCO 2007.

    Examples
    --------
    >>> spectral_ranks(np.array([2.0, 2.0, 0.0]), tolerance=1e-9)["effective_rank"]
    2.0
    """
    if not sigma[0] > 0:
        unknown = dict.fromkeys(
            (
                "effective_rank",
                "effective_rank_energy",
                "participation_ratio",
                "stable_rank",
                "condition_number",
            ),
            np.nan,
        )
        return {**unknown, "numerical_rank": 0.0 if sigma[0] == 0 else np.nan}
    q = sigma**2 / np.sum(sigma**2)
    condition = float(sigma[0] / sigma[-1]) if sigma[-1] > 0 else np.inf
    return {
        "effective_rank": _perplexity(sigma / sigma.sum()),
        "effective_rank_energy": _perplexity(q),
        "participation_ratio": float(1 / np.sum(q**2)),
        "stable_rank": float(1 / q[0]),
        "numerical_rank": float(np.sum(sigma > tolerance * sigma[0])),
        "condition_number": condition,
    }


def _perplexity(p: NDArray[np.float64]) -> float:
    """Return exp of the Shannon entropy, with 0 log 0 = 0."""
    positive = p[p > 0]
    return float(np.exp(np.sum(positive * np.log(1 / positive))))


@lru_cache(maxsize=256)
def gaussian_effective_rank(rows: int, columns: int) -> float:
    """Return the mean effective rank of random Gaussian matrices of a shape."""
    generator = torch.Generator().manual_seed(rows * 1_000_003 + columns)
    ranks = [
        _perplexity(sigma / sigma.sum())
        for sigma in (
            singular_values(torch.randn(rows, columns, generator=generator))
            for _ in range(GAUSSIAN_DRAWS)
        )
    ]
    return float(np.mean(ranks))


def effective_rank(model: Network) -> xr.Dataset:
    """Measure the spectrum of every weight matrix.

    A random square matrix already has four fifths of the full effective rank and a 1:4 one nearly
    all of it, so compare matrices by ``effective_rank_ratio``. Below 1: the matrix uses fewer
    directions than chance would. A low rank says that a matrix could be factored cheaply, not
    that the network does not need it.

    Returns
    -------
    Dataset
        Dim ``matrix`` with coords block, role, rows, columns.
    """
    matrices = model.matrices()
    eps = float(torch.finfo(torch.float32).eps)
    found = [
        spectral_ranks(singular_values(matrix.weight), tolerance=max(matrix.weight.shape) * eps)
        for matrix in matrices
    ]
    names = {
        "effective_rank": "effective rank exp(H(sigma))",
        "effective_rank_energy": "effective rank of energy exp(H(sigma^2))",
        "participation_ratio": "participation ratio",
        "stable_rank": "stable rank",
        "numerical_rank": "numerical rank at float32",
        "condition_number": "condition number",
    }
    data = {
        key: variable("matrix", [each[key] for each in found], what) for key, what in names.items()
    }
    gaussian = np.array([gaussian_effective_rank(*matrix.weight.shape) for matrix in matrices])
    data["effective_rank_gaussian"] = variable(
        "matrix", gaussian, "effective rank of a Gaussian matrix of the same shape"
    )
    data["effective_rank_ratio"] = variable(
        "matrix", data["effective_rank"].values / gaussian, "effective rank over its Gaussian"
    )
    coords = {
        "matrix": [matrix.name for matrix in matrices],
        "block": ("matrix", [matrix.block for matrix in matrices]),
        "role": ("matrix", [matrix.role for matrix in matrices]),
        "rows": ("matrix", [matrix.weight.shape[0] for matrix in matrices]),
        "columns": ("matrix", [matrix.weight.shape[1] for matrix in matrices]),
    }
    return check(xr.Dataset(data, coords=coords))


def _measure(sample: Sample) -> xr.Dataset:
    """Measure the last weights, and every kept checkpoint along `step`."""
    steps = sorted(sample.checkpoints)
    if not steps:
        return effective_rank(sample.model)
    found = [effective_rank(sample.checkpoints[step]) for step in steps]
    return xr.concat(found, dim=xr.Variable("step", steps), data_vars="all")


DIAGNOSTIC = Diagnostic(tier="weights", measure=_measure)
