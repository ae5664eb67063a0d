"""How many targets each profile covers and owns, followed over the kept checkpoints of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from workbench.diagnostics.branch import profile_states
from workbench.diagnostics.branch_profile import branch_profile
from workbench.diagnostics.sample import Sample
from workbench.result import check, variable
from workbench.text.context_gate import branches
from workbench.text.world import Record

SERIES = {
    "coverage_by_step": "share of targets predicted anywhere",
    "owned_by_step": "share of targets predicted where due",
    "above_floor": "coverage less that of step 0",
}


def coverage_history(sample: Sample, profiles: Mapping[str, Sequence[Record]]) -> xr.Dataset:
    """Follow how many targets each profile covers and owns over the kept checkpoints.

    Parameters
    ----------
    sample : Sample
        A run with its checkpoints.
    profiles : mapping of str to sequence of Record
        See `routing_audit`.

    Returns
    -------
    Dataset
        Dims ``step`` and ``profile``: `coverage_by_step`, `owned_by_step` and `above_floor`,
        coverage less that of step 0: below 0 the floor is broken, and what could not be measured
        counts as -1. Dim ``step``: the lowest of each among profiles with several targets, by
        which `runs.select_checkpoint` can choose.
    """
    found = {
        name: branches(records, sample.tokenizer, context_length=sample.sequence_length)
        for name, records in profiles.items()
    }
    steps = list(sample.history)
    rates = np.empty((3, len(steps), len(found)))
    for row, step in enumerate(steps):
        model = at_step(sample, step).model
        for column, each in enumerate(found.values()):
            states = profile_states(model, each, pieces=sample.tokenizer.pieces)
            answers = branch_profile(states.logits, states.target, pieces=sample.tokenizer.pieces)
            rates[:2, row, column] = answers.target_coverage, answers.owned_coverage
    start = rates[0, 0] if steps[0] == 0 else np.nan
    rates[2] = np.round(np.nan_to_num(rates[0], nan=-1.0) - start, 12)
    several = [len(set(each.targets.tolist())) > 1 for each in found.values()]
    lowest = rates[:, :, several].min(axis=2, initial=np.inf)
    lowest[np.isinf(lowest)] = np.nan
    made = {}
    for name, values, low in zip(SERIES, rates, lowest, strict=True):
        made[name] = variable(("step", "profile"), values, SERIES[name])
        made[f"{name}_min"] = variable("step", low, f"lowest {SERIES[name]}")
    return check(xr.Dataset(made, coords={"step": steps, "profile": list(found)}))


def at_step(sample: Sample, step: int) -> Sample:
    """Return a sample with the weights of a kept checkpoint, or as it is if `step` is its own."""
    if step == sample.step:
        return sample
    return replace(sample, model=sample.checkpoints[step], step=step)
