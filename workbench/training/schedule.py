"""The learning-rate multiplier: a linear warmup, full rate, a linear warmdown."""


def multiplier(
    step: int,
    *,
    steps: int,
    warmdown_steps: int,
    warmup_steps: int = 0,
    seconds: float | None = None,
    elapsed: float = 0.0,
) -> float:
    """Return the factor on every learning rate for the update after `step` updates.

    Parameters
    ----------
    step : int
        Updates done so far.
    steps, warmdown_steps : int
        Length of the run and of its linear descent to 0, in updates.
    warmup_steps : int
        Length of the linear rise from 0, in updates. The lower of rise and descent counts.
    seconds : float, optional
        Time budget. The descent then also begins when what is left of it equals `warmdown_steps`
        at the pace so far, and reaches 0 at the end of the budget. Whichever end is nearer
        counts, so the descent is never missed.
    elapsed : float
        Training time so far [s].

    Examples
    --------
    >>> [multiplier(step, steps=10, warmdown_steps=4) for step in (0, 6, 8, 9)]
    [1.0, 1.0, 0.5, 0.25]
    >>> [multiplier(step, steps=9, warmdown_steps=0, warmup_steps=4) for step in (0, 1, 3, 8)]
    [0.25, 0.5, 1.0, 1.0]
    """
    rising = min((step + 1) / max(warmup_steps, 1), 1.0)
    if warmdown_steps <= 0:
        return rising
    by_steps = min(max((steps - step) / warmdown_steps, 0.0), rising)
    if seconds is None or step == 0 or elapsed <= 0:
        return by_steps
    window = warmdown_steps * elapsed / step
    return min(max(seconds - elapsed, 0.0) / window, by_steps)
