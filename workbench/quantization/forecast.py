"""How many bytes an artifact will take: before training from shapes, before coding from codes."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.model import ModelConfig, Network
from workbench.quantization.artifact import kind_of
from workbench.quantization.grid import Codes
from workbench.quantization.range_coder import N_CONTEXT, PRIOR, contexts

LEVEL = 4.1  # bits of one scale or row mean, as a step from the one before
AROUND = 200  # bytes of header and checksum
MOST = 4096  # magnitudes from here are counted as one
REACH = 12.0  # standard deviations of a normal row that are summed over


def coded_bytes(tensors: Mapping[str, Codes | Tensor]) -> int:
    """Forecast the artifact of a quantised model from how often each code stands in each context.

    It is what the range coder would need had it known the frequencies before, and half a
    logarithm a symbol for learning them; nothing is coded, so it takes a tenth of the time.
    """
    counts, bits = np.zeros((N_CONTEXT, MOST)), 0.0
    for each in tensors.values():
        if not isinstance(each, Codes):
            bits += 16 * each.numel()
            continue
        codes = np.abs(each.codes.numpy().astype(np.int64))
        np.add.at(counts, (contexts(codes), np.minimum(codes, MOST - 1)), 1)
        column = each.grid.column_scale
        scales = each.grid.row_scale.numel() + (0 if column is None else column.numel())
        bits += (LEVEL if kind_of(each) == "p" else 16) * scales + LEVEL * len(codes)
        bits += (codes > 0).sum()
    met = counts.sum(axis=1)
    learned = 0.5 * (np.maximum((counts > 0).sum(axis=1) - 1, 0) * np.log2(1 + met / PRIOR)).sum()
    bits += _entropy(counts, met[:, None]) + learned
    return round(bits / 8) + AROUND


def _entropy(counts: NDArray[np.float64], total: NDArray[np.float64]) -> float:
    """Sum ``-count log2(count / total)``."""
    some = counts > 0
    return float(-(counts[some] * np.log2((counts / np.maximum(total, 1))[some])).sum())


def gaussian_bytes(config: ModelConfig, *, bits: int, deviations: float | None = None) -> int:
    """Forecast the artifact of a model that is not trained yet, from its shapes alone.

    Trained rows are near enough to normal for that where the step follows their spread. Where it
    follows their largest weight (`deviations` None), tails make it a guess within a tenth.

    Parameters
    ----------
    config : ModelConfig
    bits, deviations
        Of `integer_grid`, one scale a row.
    """
    with torch.device("meta"):
        shapes = [tuple(each.shape) for each in Network(config).state_dict().values()]
    total = 0.0
    for shape in shapes:
        if len(shape) != 2:
            total += 16 * math.prod(shape)
            continue
        reach = _largest(shape[1]) if deviations is None else deviations
        limit = 2 ** (bits - 1) - 1
        total += math.prod(shape) * _normal_entropy(reach / limit, limit) + (16 + LEVEL) * shape[0]
    return round(total / 8) + AROUND


def _normal_entropy(step: float, limit: int) -> float:
    """Return the entropy of a standard normal number rounded to steps, bounded [bit]."""
    codes = np.arange(-min(limit, int(REACH / step) + 1), min(limit, int(REACH / step) + 1) + 1)
    edges = np.append(-np.inf, np.append((codes[:-1] + 0.5) * step, np.inf))
    below = np.array([0.5 * math.erfc(-each / math.sqrt(2)) for each in edges])
    return _entropy(np.diff(below), np.ones(1))


def _largest(count: int) -> float:
    """Return the mean of the largest magnitude of so many standard normal numbers."""
    at = np.linspace(0, REACH, 4001)
    inside = np.array([math.erf(each / math.sqrt(2)) for each in at])
    return float(np.trapezoid(1 - inside**count, at))
