"""Checks in the order in which a fault hides those behind it, and what they mean for promotion."""

import numpy as np
import xarray as xr

from workbench.diagnostics.localisation import ENOUGH
from workbench.diagnostics.routing_risk import MOSTLY_BIAS
from workbench.result import variable

# Below a half, wrong answers to a target are as common as right ones, and one right record each is
# enough to own every target.
RECALL_FLOOR = 0.5

QUESTIONS = {
    "context": "can the tokens that the model is given decide the answer",
    "reachable": "can some hidden state make the rows of the head emit every target",
    "probe": "does the final hidden state carry the answer in a form that other facts share",
    "prior": "is the answer beaten by this context, not by bias and prior",
    "separation": "do hidden states of different targets lie apart",
    "imbalance": "is no target asked for in half of the records",
    "ownership": "is every target predicted where it is due, and for most of its records",
}


def ladder(audit: xr.Dataset) -> xr.Dataset:
    """Climb the checks of every profile up to the first that is red.

    Probe, prior and separation explain failures: they are green where every target is owned and
    the macro recall, less twice its error over facts, is not below `RECALL_FLOOR`; they cannot
    judge fewer than five failed records. A profile with one target is not judged at all.

    Parameters
    ----------
    audit : Dataset
        Variables over ``profile`` as `routing_audit` measures them.

    Returns
    -------
    Dataset
        `state` (profile, rung), ``green``, ``red``, ``not able to judge`` or ``not reached``, and
        `first_red` (profile), the name of a rung, or nothing. Attrs: `promote`, 1 when at least
        one profile is judged and none is red; `first_red`, the first rung that is red anywhere,
        and `red_profiles`, how many profiles are red there.
    """
    least = audit.macro_recall.values - 2 * audit.macro_recall_standard_error.values
    owned = (audit.owned_coverage.values >= 1) & (least >= RECALL_FLOOR)
    few = ~owned & (audit.failed.values < ENOUGH)
    where, apart = audit.localised.values, audit.separation_verdict.values
    rungs = {  # red, not able to judge
        "context": (~audit.context_gate_passed.values.astype(bool), False),
        "reachable": (audit.row_ceiling.values < 1, False),
        "probe": (~owned & (where == "trunk"), ~owned & (where == "unjudged")),
        "prior": (~owned & (audit.constant_share.values >= MOSTLY_BIAS), few),
        "separation": (~owned & (apart == "low"), few | (apart == "unjudged")),
        "imbalance": (audit.hotspot.values.astype(bool), False),
        "ownership": (~owned, False),
    }
    red, blind = np.stack([np.broadcast_arrays(*rungs[rung]) for rung in QUESTIONS], axis=-1)
    stops = red & ~blind
    state = np.where(stops, "red", np.where(blind, "not able to judge", "green"))
    state = np.where(stops.cumsum(axis=1) > stops, "not reached", state)
    several = audit.target_unique.values >= 2
    state[~several] = "not able to judge"
    counts = dict(zip(QUESTIONS, (state == "red").sum(axis=0).tolist(), strict=True))
    first = next((rung for rung, count in counts.items() if count), "")
    rung_of_stop = np.array(list(QUESTIONS))[stops.argmax(axis=1)]
    stopped_at = np.where((state == "red").any(axis=1), rung_of_stop, "")
    found = {
        "state": variable(("profile", "rung"), state, "state of the rung"),
        "first_red": variable("profile", stopped_at, "first rung that is red"),
    }
    attrs = {
        "promote": int(several.any() and not first),
        "first_red": first,
        "red_profiles": counts.get(first, 0),
    }
    coords = {
        "profile": audit.profile.values,
        "rung": list(QUESTIONS),
        "question": ("rung", list(QUESTIONS.values())),
    }
    return xr.Dataset(found, coords=coords, attrs=attrs)
