"""Effective rank of every weight matrix, beside a random matrix of the same shape."""

import numpy as np
import xarray as xr
from torch import Tensor

from workbench.diagnostics.sample import Diagnostic, Sample
from workbench.diagnostics.spectrum import (
    EPS,
    gaussian_effective_rank,
    gaussian_spectra,
    spectra,
    spectral_ranks,
    spectral_shape,
)
from workbench.model import Network
from workbench.result import check, variable

COLUMNS = {
    "effective_rank": "effective rank exp(H(sigma))",
    "effective_rank_energy": "effective rank of energy exp(H(sigma^2))",
    "participation_ratio": "participation ratio",
    "stable_rank": "stable rank",
    "numerical_rank": "numerical rank at float32",
    "condition_number": "condition number",
    "rank_99": "singular values that hold 99 % of their sum",
    "energy_rank_95": "singular values that hold 95 % of the energy",
    "spectral_entropy": "H(sigma^2) over log of the rank at float64",
    "rank_float64": "numerical rank at float64",
    "marchenko_pastur_rank": "edge of noise of equal energy over the largest eigenvalue",
    "lambda_max": "largest eigenvalue",
    "log_norm": "log10 of the sum of eigenvalues",
    "alpha": "power-law exponent of the tail (for experts)",
    "alpha_distance": "distance of tail and power law (for experts)",
    "alpha_tail": "eigenvalues in the tail (for experts)",
    "kurtosis": "kurtosis of the entries (Gaussian: 3)",
    "row_peak": "largest norm of a row over the median",
    "column_peak": "largest norm of a column over the median",
    "row_peak_at": "row of the largest norm",
    "column_peak_at": "column of the largest norm",
    "effective_rank_gaussian": "effective rank of a Gaussian matrix of the same shape",
    "effective_rank_ratio": "effective rank over its Gaussian",
    "proportional_effective_rank": "effective rank over the short side",  # Diehl Martinez et al.
}


def effective_rank(model: Network) -> xr.Dataset:
    """Measure the spectrum of every weight matrix.

    A random square matrix already has four fifths of the full effective rank and a 1:4 one nearly
    all of it, so compare matrices by ``effective_rank_ratio``. Below 1: the matrix uses fewer
    directions than chance would. A low rank says that a matrix could be factored cheaply, not
    that the network does not need it. The ranks of benign overfitting (Bartlett et al.) are, with
    no value set apart, the stable rank and the participation ratio.

    Returns
    -------
    Dataset
        Dim ``matrix`` with coords block, role, rows, columns; the names in `COLUMNS`, the effective
        rank of a Gaussian and its ratio. ``singular_value`` (matrix, singular) is NaN beyond a
        matrix's size; ``singular_value_low`` and ``_high`` are the least and the most of Gaussian
        draws of its shape and energy.
    """
    matrices = model.matrices()
    shapes = [(each.weight.shape[0], each.weight.shape[1]) for each in matrices]
    sigmas = spectra([each.weight for each in matrices])
    found = [
        spectral_ranks(sigma, tolerance=max(shape) * EPS)
        | spectral_shape(sigma, shape=shape)
        | _entries(matrix.weight)
        | {"effective_rank_gaussian": gaussian_effective_rank(*shape)}
        for matrix, sigma, shape in zip(matrices, sigmas, shapes, strict=True)
    ]
    for each, shape in zip(found, shapes, strict=True):
        rank = each["effective_rank"]
        each["effective_rank_ratio"] = rank / each["effective_rank_gaussian"]
        each["proportional_effective_rank"] = rank / min(shape)
    data = {
        key: variable("matrix", [each[key] for each in found], what)
        for key, what in COLUMNS.items()
    }
    scaled = [
        gaussian_spectra(*shape) * np.linalg.norm(sigma)
        for shape, sigma in zip(shapes, sigmas, strict=True)
    ]
    for name, curves, what in (
        ("singular_value", sigmas, "singular value"),
        ("singular_value_low", [each.min(axis=0) for each in scaled], "least of Gaussian draws"),
        ("singular_value_high", [each.max(axis=0) for each in scaled], "most of Gaussian draws"),
    ):
        size = max(map(len, curves))
        filled = [np.pad(each, (0, size - len(each)), constant_values=np.nan) for each in curves]
        data[name] = variable(("matrix", "singular"), np.array(filled, dtype=np.float32), what)
    where = {
        "matrix": [matrix.name for matrix in matrices],
        "block": [matrix.block for matrix in matrices],
        "role": [matrix.role for matrix in matrices],
        "rows": [rows for rows, _ in shapes],
        "columns": [columns for _, columns in shapes],
    }
    coords = {name: ("matrix", values) for name, values in where.items()}
    return check(xr.Dataset(data, coords=coords))


def _entries(weight: Tensor) -> dict[str, float]:
    """Describe the entries: how heavy their tails are, which row and column are loudest."""
    matrix = weight.detach().float()
    square = (matrix - matrix.mean()).square()
    found = {"kurtosis": float(square.square().mean() / square.mean().square())}
    for side, dim in (("row", 1), ("column", 0)):
        norm = matrix.square().sum(dim=dim).sqrt()
        found[f"{side}_peak"] = float(norm.max() / norm.median())
        found[f"{side}_peak_at"] = float(norm.argmax())
    return found if np.isfinite(found["row_peak"]) else dict.fromkeys(found, np.nan)


def _measure(sample: Sample) -> xr.Dataset:
    """Measure the weights, and every checkpoint kept before along `step`."""
    if not sample.checkpoints:
        return effective_rank(sample.model)
    steps = list(sample.history)
    found = [effective_rank(sample.history[step]) for step in steps]
    return xr.concat(found, dim=xr.Variable("step", steps), data_vars="all")


DIAGNOSTIC = Diagnostic(tier="weights", measure=_measure)
