"""Singular values of weights, and what is read off them: ranks, a power law, a random baseline."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GAUSSIAN_DRAWS = 3  # the mean of a few draws moves by less than 1 % of a rank
FEWEST = 20  # eigenvalues below which an exponent is not fitted
TAILS = 64  # tails fitted at a time, to bound memory
EPS = float(np.finfo(np.float32).eps)  # of stored weights

Values = NDArray[np.float64]


def spectra(weights: Sequence[Tensor]) -> list[Values]:
    """Return the singular values of each matrix, largest first.

    They are the roots of the eigenvalues of the smaller Gram matrix in float64, several times
    cheaper than a decomposition of the matrix; matrices of one shape are done in one call.
    Squaring loses the small ones when the condition number passes about 1e6, so such a matrix is
    decomposed itself.

    Parameters
    ----------
    weights : sequence of (rows, columns) tensors

    Returns
    -------
    list of (min(rows, columns),) float64
        All NaN where an entry of the matrix is not finite.
    """
    exact = [each if each.dtype == torch.float64 else each.float() for each in weights]
    wide = [each.detach().cpu().numpy() for each in exact]
    wide = [each if each.shape[0] <= each.shape[1] else each.T for each in wide]
    found = [np.empty(0)] * len(wide)
    for shape in {each.shape for each in wide}:
        places = [at for at, each in enumerate(wide) if each.shape == shape]
        stack = np.stack([wide[at] for at in places], dtype=np.float64)  # (matrix, rows, columns)
        finite = np.isfinite(stack).all(axis=(1, 2))
        stack[~finite] = 0
        # numpy's LAPACK does this in half the time that torch's takes on a CPU.
        energy = np.linalg.eigvalsh(stack @ stack.swapaxes(1, 2))[:, ::-1]
        lost = (energy[:, -1] <= 1e-12 * energy[:, 0]) & (energy[:, 0] > 0)
        sigma = np.sqrt(np.maximum(energy, 0))
        if lost.any():
            sigma[lost] = np.linalg.svd(stack[lost], compute_uv=False)
        sigma[~finite] = np.nan
        for at, values in zip(places, sigma, strict=True):
            found[at] = values
    return found


def singular_values(weight: Tensor) -> Values:
    """Return the singular values of one matrix; see `spectra`."""
    return spectra([weight])[0]


def spectral_ranks(sigma: Values, *, tolerance: float) -> dict[str, float]:
    """Reduce singular values to the numbers that the literature calls rank.

    Most are Renyi entropies of two distributions: ``p = sigma / sum(sigma)`` and
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
        ``effective_rank`` exp(H(p)) [1]_, ``effective_rank_energy`` exp(H(q)),
        ``participation_ratio`` 1 / sum(q**2), ``stable_rank`` 1 / max(q), ``numerical_rank``,
        ``condition_number``; ``rank_99`` and ``energy_rank_95``, how many of the largest hold so
        many per cent of sum(sigma) [2]_ and of sum(sigma**2). All but the numerical rank are NaN
        for a matrix of zeros, and all for singular values that are NaN.

    References
    ----------
    .. [1] Roy and Vetterli, The effective rank, EUSIPCO 2007.
    .. [2] Kumar et al., Implicit under-parameterization (srank with delta 0.01), ICLR 2021.

    Examples
    --------
    >>> spectral_ranks(np.array([2.0, 2.0, 0.0]), tolerance=1e-9)["effective_rank"]
    2.0
    """
    if not sigma[0] > 0:
        unknown = dict.fromkeys(spectral_ranks(np.ones(1), tolerance=0), np.nan)
        return unknown | {"numerical_rank": 0.0 if sigma[0] == 0 else np.nan}
    p, q = sigma / sigma.sum(), sigma**2 / np.sum(sigma**2)
    return {
        "effective_rank": _perplexity(p),
        "effective_rank_energy": _perplexity(q),
        "participation_ratio": float(1 / np.sum(q**2)),
        "stable_rank": float(1 / q[0]),
        "numerical_rank": float(np.sum(sigma > tolerance * sigma[0])),
        "condition_number": float(sigma[0] / sigma[-1]) if sigma[-1] > 0 else np.inf,
        "rank_99": 1.0 + np.sum(np.cumsum(p) < 0.99),
        "energy_rank_95": 1.0 + np.sum(np.cumsum(q) < 0.95),
    }


def _perplexity(p: Values) -> float:
    """Return exp of the Shannon entropy, with 0 log 0 = 0."""
    positive = p[p > 0]
    return float(np.exp(-np.sum(positive * np.log(positive))))  # 1 / p can overflow


def spectral_shape(sigma: Values, *, shape: tuple[int, int]) -> dict[str, float]:
    """Describe a spectrum for experts, in the conventions of WeightWatcher where it has them.

    Parameters
    ----------
    sigma : (singular,) float64
        Largest first.
    shape : (rows, columns)
        Of the matrix.

    Returns
    -------
    dict
        ``lambda_max`` sigma[0]**2, ``log_norm`` log10(sum(sigma**2)), ``rank_float64`` counted at
        the precision of float64, ``spectral_entropy`` H(q) over the logarithm of that rank, and
        ``marchenko_pastur_rank``: the largest eigenvalue that noise with the energy of the whole
        matrix would have, over `lambda_max` [1]_. Then `power_law`. NaN where there is no spectrum.

    References
    ----------
    .. [1] Martin and Mahoney, Implicit self-regularization in deep neural networks, JMLR 2021.
    """
    if not sigma[0] > 0:
        return dict.fromkeys(spectral_shape(np.ones(2), shape=(2, 2)), np.nan)
    energy, total = sigma**2, float(np.sum(sigma**2))
    rank = float(np.sum(sigma > max(shape) * np.finfo(np.float64).eps * sigma[0]))
    edge = (np.sqrt(shape[0]) + np.sqrt(shape[1])) ** 2 * total / np.prod(shape)
    entropy = np.log(_perplexity(energy / total))
    return {
        "lambda_max": float(energy[0]),
        "log_norm": float(np.log10(total)),
        "rank_float64": rank,
        "spectral_entropy": float(entropy / np.log(rank)) if rank > 1 else np.nan,
        "marchenko_pastur_rank": float(edge / energy[0]),
        **power_law(energy[sigma > max(shape) * EPS * sigma[0]]),
    }


def power_law(energy: Values) -> dict[str, float]:
    """Fit ``density ~ energy**-alpha`` to the tail of a spectrum, by maximum likelihood.

    The tail begins at the value that makes the Kolmogorov-Smirnov distance between tail and fit
    smallest; every value but the largest is tried.

    Parameters
    ----------
    energy : (value,) float64
        Positive eigenvalues in any order; fewer than 20 give NaN.

    Returns
    -------
    dict
        ``alpha``, ``alpha_distance`` (the distance), ``alpha_tail`` (values in the tail).

    References
    ----------
    .. [1] Clauset, Shalizi and Newman, Power-law distributions in empirical data, 2009.
    """
    names = ("alpha", "alpha_distance", "alpha_tail")
    if len(energy) < FEWEST:
        return dict.fromkeys(names, np.nan)
    log = np.log(np.sort(energy))
    size = np.arange(len(log), 0, -1.0)  # of the tail that begins at each value
    place, distance = np.arange(len(log)), np.full(len(log), np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):  # a tail of equal values has no exponent
        alpha = 1 + size / (np.cumsum(log[::-1])[::-1] - size * log)
        for at in range(0, len(log) - 1, TAILS):
            tails = np.s_[at : min(at + TAILS, len(log) - 1), None]
            beyond = np.triu(log[at:] - log[tails])  # (tail, value)
            seen = (place[at:] - place[tails]) / size[tails]
            apart = 1 - np.exp((1 - alpha[tails]) * beyond) - seen
            distance[tails[0]] = np.abs(np.triu(apart)).max(axis=1)
    best = int(np.nanargmin(distance))
    if not np.isfinite(distance[best]):
        return dict.fromkeys(names, np.nan)
    told = (alpha[best], distance[best], size[best])
    return dict(zip(names, map(float, told), strict=True))


@lru_cache(maxsize=256)
def gaussian_spectra(rows: int, columns: int) -> Values:
    """Return singular values of random Gaussian matrices of a shape, each of energy 1.

    Returns
    -------
    (draw, singular) float64
    """
    few, many = sorted((rows, columns))
    generator = torch.Generator().manual_seed(few * 1_000_003 + many)
    drawn = torch.randn(GAUSSIAN_DRAWS, few, many, generator=generator)
    sigma = np.stack(spectra(list(drawn)))
    return sigma / np.linalg.norm(sigma, axis=1, keepdims=True)


def gaussian_effective_rank(rows: int, columns: int) -> float:
    """Return the mean effective rank of random Gaussian matrices of a shape."""
    drawn = gaussian_spectra(rows, columns)
    return float(np.mean([_perplexity(sigma / sigma.sum()) for sigma in drawn]))
