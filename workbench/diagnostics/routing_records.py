"""Record by record: what a profile's prompts get, by how much, and what lies close to them."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from workbench.diagnostics.branch import BranchStates, piece_order
from workbench.diagnostics.branch_profile import softmax, standing
from workbench.diagnostics.logit_prior import Reference, explain
from workbench.diagnostics.separation import centroid_distances
from workbench.model import Network
from workbench.result import check, variable

CHOICES = 5


def routing_records(
    model: Network, states: BranchStates, *, pieces: Sequence[str], reference: Reference
) -> xr.Dataset:
    """List the records of one profile with what decides each of them.

    Parameters
    ----------
    model : Network
        The model the states come from.
    states : BranchStates
        Of one whole profile: centroids are those of its targets.
    pieces : sequence of str
        Text of every id.
    reference : tuple of (channel,) float64 and str
        See `logit_prior`.

    Returns
    -------
    Dataset
        What `logit_prior` gives for every ``record``, with `prompt`, `probability` of the target,
        `lead` (that less the best other), `rank`, the likeliest answers over ``choice`` and the
        `centroid_distance` to every ``part`` (a target of the profile), in units of the root mean
        square norm; its own centroid leaves the record out.
    """
    parts = explain(model, states, pieces, reference=reference)
    place, texts = piece_order(pieces), np.array(pieces)
    probability, lead, rank = standing(states.logits, states.target, place=place)
    order = np.lexsort((np.broadcast_to(place, states.scores.shape), -states.scores))[:, :CHOICES]
    chances = np.take_along_axis(softmax(states.logits), order, axis=1)
    groups, number, size = np.unique(states.target, return_inverse=True, return_counts=True)
    norm = np.sqrt((states.hidden**2).sum(axis=1).mean())
    distance = centroid_distances(states.hidden / norm, number, size=size)
    choice = ("record", "choice")
    found = {
        "prompt": variable("record", [each.prompt for each in states.records], "prompt"),
        "probability": variable("record", probability, "probability of the target"),
        "lead": variable("record", lead, "that less the probability of the best other"),
        "rank": variable("record", rank, "rank of the target, 1 is best"),
        "likeliest": variable(choice, texts[order], "likeliest answers, best first"),
        "likeliest_probability": variable(choice, chances, "their probabilities"),
        "centroid_distance": variable(
            ("record", "part"), distance, "distance to the centroid of a target"
        ),
    }
    return check(parts.assign(found).assign_coords(part=texts[groups]))
