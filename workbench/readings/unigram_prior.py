"""What bias and prior favour beyond how common tokens are."""

import numpy as np
import xarray as xr

from workbench.readings.phrasing import visible

FEW_TOKENS = 20
FAR = 4.0  # standard deviations from the line that are news


def unigram_prior(ds: xr.Dataset) -> str:
    """Say how well the constant part follows frequency, and name the tokens furthest above.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    judged = ds.isel(vocabulary=np.flatnonzero(np.isfinite(ds.excess.values)))
    count, excess = judged.sizes["vocabulary"], judged.excess.values
    if count < FEW_TOKENS:
        return f"Not able to judge: only {count} tokens were learned often enough."
    top, far = np.argsort(-excess)[:3], int((excess > FAR * excess.std()).sum())
    pieces = [visible(str(piece)) for piece in judged.piece.values[top]]
    named = ", ".join(f"'{p}' {excess[at]:+.2f}" for p, at in zip(pieces, top, strict=True))
    news = "Favoured in every context" if far else "No token dominates"
    return (
        f"Bias and prior follow log-frequency with correlation {ds.attrs['correlation']:.2f} over "
        f"{count} tokens; furthest above the line are {named} nat. {news}: "
        f"{far} beyond {FAR:.0f} standard deviations of {excess.std():.2f} nat."
    )
