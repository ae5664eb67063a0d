"""The loss around a learned alpha: free, needed, or not yet where it should be."""

from typing import Any

import numpy as np
import xarray as xr

from workbench.diagnostics.intervention import Trial, added_bits, intervention_cost
from workbench.diagnostics.mixing import ALPHA, ENOUGH, SMALL, Scalar, scalars
from workbench.diagnostics.value_residual import initial_mix
from workbench.model import Network
from workbench.result import check, variable

OFFSETS = np.array([-1, -0.5, -0.2, 0.2, 0.5, 1])  # of the learned mix, at least 0.5
POWERS = np.arange(1, 5)  # of the curve fitted to them, which passes through the learned mix


def alpha_curve(trial: Trial, visit: int) -> xr.Dataset:
    """Measure the loss with the mix of one visit at 0, at its start, and around what it learned.

    Parameters
    ----------
    trial : Trial
        A model with a value residual on its tokens.
    visit : int
        From 1 on.

    Returns
    -------
    Dataset
        Dim ``setting`` (the mix): `cost` [bit/byte] with its paired standard error. Of a polynomial
        of fourth degree through the learned mix: `minimum`, the mix of least loss in the range,
        and `curvature` at the learned mix with its standard error. Attr ``verdict``, each beyond
        twice its error: ``flat`` (no mix costs `SMALL`), ``elsewhere`` (another mix saves more
        than that), ``needed`` (curved, and other mixes cost something) or ``unjudged``.
    """
    model, rows, scalar = trial.model, trial.rows, alpha_of(trial.model, visit)
    learned, start = float(scalar.values(model)[0]), initial_mix(model)
    wide = max(abs(learned), 0.5)
    tried = np.array([*(learned + wide * OFFSETS), 0, start])
    if model.value_residual.config.gate == "sigmoid":
        tried = tried.clip(0, 1)
    tried = np.unique(tried[tried != learned])
    changes = [scalar.set_to(model, mix) for mix in tried]
    bits = added_bits(model, rows, changes, base=trial.base)  # (setting, target)
    fit = np.linalg.pinv(((tried - learned) / wide)[:, None] ** POWERS)  # (power, setting)
    bend = 2 / wide**2 * fit[1]
    (*cost, _), (*errors, bend_error) = rows.ratio(np.vstack([bits, bend @ bits]))
    inside = np.linspace(tried.min(), tried.max(), 2001)
    height = ((inside - learned) / wide)[:, None] ** POWERS @ fit @ cost
    place = int(np.searchsorted(tried, learned))  # the learned mix costs nothing, without error
    names = {
        "cost": ("setting", np.insert(cost, place, 0), "cost of this mix"),
        "cost_standard_error": ("setting", np.insert(errors, place, 0), "its standard error"),
        "curvature": ((), bend @ cost, "curvature at the learned mix, per square of the mix"),
        "curvature_standard_error": ((), bend_error, "its standard error"),
    }
    data = {name: variable(*each, "bit/byte") for name, each in names.items()}
    data["minimum"] = variable((), inside[np.argmin(height)], "mix of least loss in the range")
    made = xr.Dataset(data, coords={"setting": np.insert(tried, place, learned)})
    enough = len(np.unique(rows.group)) >= ENOUGH
    attrs: dict[str, Any] = {"visit": visit, "learned": learned, "init": start, "small": SMALL}
    return check(made.assign_attrs(attrs, verdict=_verdict(made) if enough else "unjudged"))


def mix_cost(trial: Trial, *, visit: int, mix: float) -> xr.Dataset:
    """Measure what one mix costs at one visit: `asked_cost` and its standard error."""
    change = alpha_of(trial.model, visit).set_to(trial.model, mix)
    found = intervention_cost(trial.model, trial.rows, [change], base=trial.base)
    names = {name: f"asked_{name}" for name in ("cost", "cost_standard_error")}
    return found.isel(intervention=0, drop=True)[list(names)].rename(names).assign_attrs(asked=mix)


def alpha_of(model: Network, visit: int) -> Scalar:
    """Find the alpha of a visit."""
    return next(each for each in scalars(model) if (each.parameter, each.visit) == (ALPHA, visit))


def _verdict(ds: xr.Dataset) -> str:
    """Say what the curve means; see `alpha_curve`."""
    cost, error = ds.cost.values, 2 * ds.cost_standard_error.values
    if (cost + error < SMALL).all():
        return "flat"
    if (cost + np.maximum(error, SMALL) < 0).any():
        return "elsewhere"
    curved = float(ds.curvature) > 2 * float(ds.curvature_standard_error)
    return "needed" if curved and (cost > error).any() else "unjudged"
