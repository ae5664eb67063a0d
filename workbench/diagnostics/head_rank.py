"""Effective rank of what each attention head reads and writes, beside random slices."""

import numpy as np
import xarray as xr

from workbench.diagnostics.sample import Diagnostic
from workbench.diagnostics.spectrum import gaussian_effective_rank, spectra, spectral_ranks
from workbench.model import Network
from workbench.result import check, variable

ROLES = ("query", "key", "value", "attention_out")


def head_rank(model: Network) -> xr.Dataset:
    """Measure the slice of each head: rows of query, key and value, columns of the output.

    A matrix of full rank may hold heads that are not: each head's slice is judged alone, against
    Gaussian slices of its shape.

    Returns
    -------
    Dataset
        Dims ``block, head, role``; NaN where keys and values have fewer heads than queries.
    """
    config = model.config
    shape = (config.n_layer, config.n_head, len(ROLES))
    rank, ratio = np.full(shape, np.nan), np.full(shape, np.nan)
    for matrix in model.matrices():
        if matrix.role in ROLES:
            wide = matrix.weight.mT if matrix.role == "attention_out" else matrix.weight
            heads = wide.split(config.d_head)  # (D, channel) each
            chance = gaussian_effective_rank(*heads[0].shape)
            for head, sigma in enumerate(spectra(heads)):
                place = matrix.block, head, ROLES.index(matrix.role)
                rank[place] = spectral_ranks(sigma, tolerance=0)["effective_rank"]
                ratio[place] = rank[place] / chance
    dims = ("block", "head", "role")
    data = {
        "head_rank": variable(dims, rank, "effective rank of a head's slice"),
        "head_rank_ratio": variable(dims, ratio, "effective rank of a head over its Gaussian"),
    }
    coords = {"block": range(config.n_layer), "head": range(config.n_head), "role": list(ROLES)}
    return check(xr.Dataset(data, coords=coords))


DIAGNOSTIC = Diagnostic(tier="weights", measure=lambda sample: head_rank(sample.model))
