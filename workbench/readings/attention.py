"""What the measures of attention say."""

import numpy as np
import xarray as xr

from workbench.readings.notation import with_error
from workbench.readings.phrasing import gaps, listed

EVEN, SUNK = 0.98, 0.5  # entropy of an average over the context; attention that is parked
PLACES = {"previous": "the token before", "sink": "the first key", "same_word": "equal tokens"}


def attention(ds: xr.Dataset) -> str:
    """Name the most focused head, those that attend evenly, and those that park on the first key.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    heads = ds.stack(place=("visit", "head"))
    entropy = heads.entropy.values
    if not np.isfinite(entropy).any():
        return f"Not able to judge: no head of {entropy.size} was measured."
    least = heads.isel(place=int(np.nanargmin(entropy)))
    error = float(least.entropy_standard_error)
    most = max(PLACES, key=lambda name: np.nan_to_num(float(least[name])))
    said = (
        f"Head {least['head'].item()} of visit {least.visit.item()} is the most focused: entropy "
        f"{with_error(least.entropy, error)} of even attention (+- standard error, "
        f"{ds.attrs['queries']:,.0f} queries), with "
        f"{float(least[most]):.0%} on {PLACES[most]}, where even attention has "
        f"{ds.attrs[f'even_{most}']:.0%}{gaps(entropy, 'heads')}."
    )
    names = np.array([f"{visit}.{head}" for visit, head in heads.place.values])
    idle = {"even to all keys": entropy > EVEN, "mostly to the first key": heads.sink > SUNK}
    kinds = [f"{listed('head', names[who])} {how}" for how, who in idle.items() if who.any()]
    if not kinds:
        return said
    return f"{said} Attending (visit.head): {'; '.join(kinds)}; ablate before calling them idle."
