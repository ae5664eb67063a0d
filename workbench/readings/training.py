"""What the metrics of a run say."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from workbench.readings.metrics import logged, noise_scale, tabled
from workbench.readings.phrasing import capital

NEAR_ZERO = 0.1  # of the peak learning rate: a finished warmdown ends below
NO_PLATEAU = 0.93  # of the peak after a tenth of the steps; a cosine is still above


def training(metrics: Sequence[Mapping[str, Any]] | xr.Dataset, *, under_way: bool = False) -> str:
    """Tell where a run ended, whether its learning rate came down, and what its updates were like.

    Parameters
    ----------
    metrics : sequence of mapping, or Dataset over step
        Lines of ``metrics.jsonl``, or what `tabled` makes of them.
    under_way : bool
        Of a run that has not ended a warmdown cannot be judged.
    """
    table = tabled(metrics)
    steps, losses = logged(table, "loss")
    if not losses.size:
        return "Not able to judge: no training loss was logged."
    ended = f"After step {steps[-1]:.0f} the training loss is {losses[-1]:.3f} nat/token"
    at, scores = logged(table, "validation_bits_per_byte")
    if scores.size:
        ended += f" and validation {scores[-1]:.3f} bit/byte (step {at[-1]:.0f}"
        best = int(scores.argmin())
        is_last = scores[best] == scores[-1]
        ended += ")" if is_last else f"; best {scores[best]:.3f} at step {at[best]:.0f})"
    told = [] if under_way else [_schedule(*logged(table, "learning_rate")).rstrip(".")]
    if updates := _updates(table):
        told.append(", ".join(updates))
    return ". ".join([ended, *([capital("; ".join(told))] if told else [])]) + "."


def _updates(table: xr.Dataset) -> list[str]:
    """Say what was measured of gradients and updates, clause by clause."""
    told, scale = [], noise_scale(table)
    if scale.sizes["step"]:
        about, low, high = (float(scale[name][-1]) for name in ("noise_scale", "low", "high"))
        middle = f"{about:,.0f} token ({low:,.0f} to {high:,.0f})"
        rough = f"is about {middle}" if np.isfinite(high) else f"is at least {low:,.0f} token"
        told.append(f"the gradient noise scale at step {scale.step.values[-1]} {rough}")
        steps, tokens = logged(table, "tokens")
        if len(steps) > 1:
            batch = np.diff(tokens[-2:])[0] / np.diff(steps[-2:])[0]
            told[0] += f" against {batch:,.0f} token a step"
    _, clipped = logged(table, "clipped")
    if clipped.size:
        told.append(f"{clipped.sum():.0f} of {clipped.size} updates were clipped")
    steps, still = logged(table, "zero_update_share")
    if still.size:
        said = f"{100 * still[-1]:.2g}% of the sampled weights kept their value"
        usual = f"median of {still.size}: {100 * np.median(still):.2g}%"
        told.append(f"{said} at step {steps[-1]:.0f} ({usual})")
    return told


def _schedule(steps: np.ndarray[Any, Any], rates: np.ndarray[Any, Any]) -> str:
    """Judge the shape of the learning rate."""
    if rates.size < 10 or rates.max() <= 0:
        return f"Not able to judge the learning rate from {rates.size} logged values."
    peak, final = float(rates.max()), float(rates[-1])
    ratio = final / peak
    if ratio > 0.99:
        return f"The warmdown never fired: the learning rate ended at its peak, {peak:.3g}."
    top = int(np.flatnonzero(rates >= 0.999 * peak)[0])
    span = steps[-1] - steps[top]
    later = rates[np.searchsorted(steps, steps[top] + 0.1 * span)]
    # The last update is still to use its rate: a finished descent would next reach zero.
    following = max(0.0, 2 * final - float(rates[-2]))
    outcome = f"ended at {final:.2g}, {ratio:.0%} of its peak {peak:.3g}"
    if following > NEAR_ZERO * peak:
        outcome += ": the warmdown did not finish"
    if later < NO_PLATEAU * peak:
        began = "the first step" if top == 0 else f"step {steps[top]:.0f}, the end of the warmup"
        return f"The warmdown fired from {began}, with no plateau; the learning rate {outcome}."
    last_high = steps[np.flatnonzero(rates >= 0.99 * peak)[-1]]
    return f"The learning rate began to fall after step {last_high:.0f} and {outcome}."
