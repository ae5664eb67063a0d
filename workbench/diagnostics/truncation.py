"""What a matrix would cost if it were kept to its largest directions."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from workbench.diagnostics.intervention import Intervention, intervention_cost
from workbench.diagnostics.sample import Rows
from workbench.model import Network
from workbench.result import check, variable

BYTES = 2  # of one parameter, as bfloat16 stores it


def truncation(
    model: Network,
    rows: Rows,
    *,
    matrix: str,
    ranks: Sequence[int],
    base: NDArray[np.float64] | None = None,
) -> xr.Dataset:
    """Cut a matrix to its r largest singular directions and measure what that adds.

    The best approximation of the matrix, not of what the network needs from it, and no training
    after the cut: a model trained with the factors would lose less.

    Parameters
    ----------
    model : Network
        Left as it was found.
    rows : Rows
        See `Sample.rows`.
    matrix : str
        Name in `Network.matrices`.
    ranks : sequence of int
        Directions to keep.
    base : (target,) float64, optional
        ``rows.losses(model)``, where it is known already.

    Returns
    -------
    Dataset
        Dim ``setting``, the ranks: `cost` and its paired `cost_standard_error` [bit/byte], `energy`
        kept, `bytes` of the two factors. Attrs `matrix` and `bytes_whole`, at 2 bytes a parameter.
    """
    (weight,) = (each.weight for each in model.matrices() if each.name == matrix)
    (key,) = (name for name, each in model.named_parameters() if each is weight)
    left, sigma, right = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    cuts = {r: ((left[:, :r] * sigma[:r]) @ right[:r]).to(weight.dtype) for r in ranks}
    changes = [Intervention(name=f"rank {r}", parameters={key: cuts[r]}) for r in ranks]
    found = intervention_cost(model, rows, changes, base=base).drop_dims("token_class")
    found = found.rename(intervention="setting").assign_coords(setting=list(ranks))
    energy = (sigma.square().cumsum(0) / sigma.square().sum()).cpu().numpy()
    size = BYTES * np.array(ranks) * sum(weight.shape)
    found["energy"] = variable("setting", energy[np.array(ranks) - 1], "share of energy kept")
    found["bytes"] = variable("setting", size, "bytes of the two factors", "byte")
    return check(found.assign_attrs(matrix=matrix, bytes_whole=BYTES * weight.numel()))
