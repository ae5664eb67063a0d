"""Stop a run that has come apart before it spends its budget."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

WINDOW = 20  # steps whose median is compared, at either end
RISE = 1.0  # nat/token above where the run began; no run that learns gets there


class Diverged(RuntimeError):
    """The training loss rose well above where it began."""


def divergence_guard(
    *, window: int = WINDOW, rise: float = RISE
) -> Callable[[Mapping[str, Any]], None]:
    """Make a guard that is shown every line of ``metrics.jsonl``.

    A spike passes: medians are compared, of the last steps with the first, so a run that starts
    from trained weights is held to the loss it started with.

    Parameters
    ----------
    window : int
        Steps of which the median is taken; none is judged before twice as many.
    rise : float
        How far the median may rise above the first one [nat/token].

    Returns
    -------
    callable
        Raises `Diverged`, naming the step and both losses.
    """
    losses: list[float] = []

    def guard(line: Mapping[str, Any]) -> None:
        losses.append(float(line["loss"]))
        first, last = float(np.median(losses[:window])), float(np.median(losses[-window:]))
        if len(losses) >= 2 * window and last > first + rise:
            raise Diverged(
                f"step {line['step']}: over the last {window} steps the loss is {last:.2f} nat, "
                f"over the first {window} {first:.2f}. Lower the learning rate or clip the "
                "gradient (optimizer: clip_grad_norm)."
            )

    return guard
