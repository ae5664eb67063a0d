"""What the metrics of a run say."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NEAR_ZERO = 0.1  # of the peak learning rate: a finished warmdown ends below
NO_PLATEAU = 0.93  # of the peak after a tenth of the steps; a cosine is still above


def training(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Tell where a run ended, and whether its learning rate came down as a warmdown should.

    Parameters
    ----------
    metrics : sequence of mapping
        Lines of ``metrics.jsonl``.
    """
    steps, losses = logged(metrics, "loss")
    if not losses.size:
        return "Not able to judge: no training loss was logged."
    ended = f"After step {steps[-1]:.0f} the training loss is {losses[-1]:.3f} nat/token"
    at, scores = logged(metrics, "validation_bits_per_byte")
    if scores.size:
        ended += f" and validation {scores[-1]:.3f} bit/byte (step {at[-1]:.0f}"
        best = int(scores.argmin())
        is_last = scores[best] == scores[-1]
        ended += ")" if is_last else f"; best {scores[best]:.3f} at step {at[best]:.0f})"
    return f"{ended}. {_schedule(*logged(metrics, 'learning_rate'))}"


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


def logged(
    metrics: Sequence[Mapping[str, Any]], name: str
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Take one quantity where it was logged: steps and values."""
    pairs = [
        (line["step"], line[name]) for line in metrics if isinstance(line.get(name), int | float)
    ]
    table = np.asarray(pairs, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]
