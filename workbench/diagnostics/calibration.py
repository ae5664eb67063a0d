"""Do the probabilities mean what they say: of the token predicted first, class by class."""

import numpy as np
import xarray as xr

from workbench.diagnostics.cells import by_cell, loss_cells, norm
from workbench.result import check, variable
from workbench.text import TOKEN_CLASSES

BINS = 15


def calibration(table: xr.Dataset) -> xr.Dataset:
    """Compare the probability of the token predicted first with how often it is right.

    Classes are those of the token predicted *first*, which the model chooses: a calibrated model
    has no gap in any of them. By the class of the target it would have one, since who asks for
    tokens that turned out to be digits has looked at the answer.

    ``gap`` is mean probability minus accuracy: above 0 is overconfident. ``ece`` is its size
    averaged over bins, which is above 0 for a calibrated model too: ``ece_expected`` is the mean
    that chance alone would give if tokens were independent. ``surprise`` looks at the whole
    distribution by way of the target: mean loss minus mean entropy, 0 when calibrated, above 0
    when the targets come as a surprise.

    Parameters
    ----------
    table : Dataset
        Annotated token table; see `annotated`.

    Returns
    -------
    Dataset
        `loss_cells` by ``token_class`` of the first (one is ``all``) and ``bin`` (15 of equal
        width in its probability); and by class alone ``ece``, ``ece_expected``, ``class_gap`` and
        ``class_surprise`` [nat/token]; standard errors over groups.

    References
    ----------
    .. [1] Guo et al., On Calibration of Modern Neural Networks, 2017, arXiv:1706.04599.
    """
    every = table.assign(top1_class=table.top1_class * 0 + len(TOKEN_CLASSES))
    rows = xr.concat([table, every], "token", data_vars="all")
    said, classes = rows.top1_probability.values, [*TOKEN_CLASSES, "all"]
    kind, bins = rows.top1_class.values.astype(int), np.minimum((said * BINS).astype(int), BINS - 1)
    own = {
        "token_class": (kind, classes),
        "bin": (bins, [f"{at / BINS:.2f}" for at in range(BINS)]),
    }
    found = loss_cells(rows, ["token_class", "bin"], own=own)
    off = np.sign(found.gap.values)[kind, bins] * (said - (rows["rank"].values == 1))
    of = {"group": rows.group.values, "cell": kind, "n_cell": len(classes)}
    ece, deviation = by_cell(off, np.ones(off.size), **of)
    at = kind * BINS + bins
    doubt = np.bincount(at, said * (1 - said), len(classes) * BINS).reshape(found.gap.shape)
    chance = np.sqrt(2 / np.pi * doubt).sum(axis=1) / np.maximum(found.tokens.sum("bin"), 1)
    error = norm(deviation)
    found["ece"] = variable("token_class", ece, "expected calibration error")
    found["ece_standard_error"] = variable("token_class", error, "standard error of the error")
    found["ece_expected"] = variable("token_class", chance, "calibration error by chance alone")
    whole = loss_cells(rows, ["token_class"], own=own)
    for name in ("gap", "gap_standard_error", "surprise", "surprise_standard_error"):
        found[f"class_{name}"] = whole[name]
    return check(found)
