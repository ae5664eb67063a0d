"""Learning rates and late switches: pure functions of where a run stands."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.folder import InputError, check_known, nearest

DECAYS: Mapping[str, Callable[[float], float]] = {  # of the share of the warmdown that is left
    "linear": lambda left: left,
    "cosine": lambda left: (1 - math.cos(math.pi * left)) / 2,
    "one_minus_sqrt": lambda left: 1 - math.sqrt(1 - left),
}
SETTINGS = ("warmup_steps", "warmdown_steps", "warmdown_share", "decay", "floor")  # of `schedule`
GROUPS = ("matrix", "embedding", "head", "scalar")  # kinds of parameter groups


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a run stands before an update."""

    step: int  # updates done
    steps: int  # updates at most
    elapsed: float = 0.0  # training time so far [s]
    seconds: float | None = None  # time budget [s]

    @property
    def progress(self) -> float:
        """Share of the run that is done, by steps or by time, whichever is further."""
        return max(self.step / self.steps, self.elapsed / self.seconds if self.seconds else 0.0)


Schedule = Callable[[Moment], float]


def schedule(
    *,
    warmup_steps: int = 0,
    warmdown_steps: int = 0,
    warmdown_share: float = 0.0,
    decay: str = "linear",
    floor: float = 0.0,
) -> Schedule:
    """Make the factor on a learning rate: a linear warmup, full rate, a warmdown.

    Parameters
    ----------
    warmup_steps : int
        Length of the rise from 0, in updates. The lower of rise and fall counts.
    warmdown_steps : int
        Length of the fall at the end, in updates; as many as the run has make it one long decay.
        Under a time budget it also begins when what is left of the budget equals as many updates
        at the pace so far, and ends with the budget. Whichever end is nearer counts, so the fall
        is never missed.
    warmdown_share : float
        Length of the fall as a share of the run, in place of `warmdown_steps`; 0: not used.
    decay : str
        Shape of the fall, a name of `DECAYS`: with `x` the share of the fall that is left,
        linear is ``x``, cosine ``(1 - cos(pi x)) / 2``, one_minus_sqrt ``1 - sqrt(1 - x)``.
    floor : float
        Where the fall ends, as a share of the full rate.

    Returns
    -------
    callable
        Maps a `Moment` to the factor, from 0 to 1. It depends on nothing else, so a run that
        branches off the plateau decays as one that was planned so.

    Raises
    ------
    InputError
        If a name is unknown or a share is not from 0 to 1.

    References
    ----------
    .. [1] Hu et al., MiniCPM, 2024, https://arxiv.org/abs/2404.06395 (warmup, plateau, decay).
    .. [2] Hagele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations,
       2024, https://arxiv.org/abs/2405.18392 (one_minus_sqrt).

    Examples
    --------
    >>> factor = schedule(warmdown_steps=4)
    >>> [factor(Moment(step=step, steps=10)) for step in (0, 6, 8, 9)]
    [1.0, 1.0, 0.5, 0.25]
    """
    if decay not in DECAYS or not (0 <= floor <= 1 and 0 <= warmdown_share <= 1):
        where, found = "decay, floor, warmdown_share", f"{decay}, {floor}, {warmdown_share}"
        expected = f"one of {', '.join(DECAYS)}, and two shares from 0 to 1"
        remedy = nearest(decay, list(DECAYS))
        raise InputError(where, expected=expected, found=found, remedy=remedy)

    def factor(moment: Moment) -> float:
        rising = min((moment.step + 1) / max(warmup_steps, 1), 1.0)
        left = _left(moment, warmdown_steps)
        if warmdown_share:
            left = max(1 - moment.progress, 0.0) / warmdown_share
        return min(rising, floor + (1 - floor) * DECAYS[decay](left) if left < 1 else 1.0)

    return factor


def _left(moment: Moment, warmdown_steps: int) -> float:
    """Return the share of the warmdown that is left; 1 or more before it begins."""
    if not warmdown_steps:
        return 1.0
    left = max(moment.steps - moment.step, 0) / warmdown_steps
    if moment.seconds is None or moment.step == 0 or moment.elapsed <= 0:
        return left
    window = warmdown_steps * moment.elapsed / moment.step
    return min(max(moment.seconds - moment.elapsed, 0.0) / window, left)


def group_settings(config: Any) -> dict[str, dict[str, Any]]:
    """Return the settings of `schedule` by kind of parameter group.

    A constant factor on a kind is its rate in `OptimizerConfig`; what differs here is the shape.

    Parameters
    ----------
    config : TrainConfig
        Its fields of `SETTINGS` hold for all, those in ``by_group`` for a kind:
        ``{"embedding": {"floor": 0.1}}``.

    Raises
    ------
    InputError
        If a kind or a setting is unknown.
    """
    own = config.by_group
    check_known(own, GROUPS, what="by_group kind")
    for settings in own.values():
        check_known(settings, SETTINGS, what="by_group setting")
    common = {name: getattr(config, name) for name in SETTINGS}
    return {kind: common | dict(own.get(kind, {})) for kind in GROUPS}


@dataclass(frozen=True, kw_only=True)
class Switch:
    """Settings that a run takes on late; None leaves a setting as it is."""

    at: float  # share of the run, by steps or by time, whichever is further
    sequence_length: int | None = None
    tokens_per_step: int | None = None
    passes: int | None = None  # of blocks that recur
    quantize_bits: int | None = None  # of the grid that matrices are rounded to

    def __post_init__(self) -> None:
        if not 0 < self.at < 1 or min(self.settings.values(), default=0) < 1:
            expected, remedy = "at above 0 and below 1, and a setting from 1", "Give both."
            raise InputError("switches", expected=expected, found=str(self), remedy=remedy)

    @property
    def settings(self) -> dict[str, Any]:
        """What changes, by name."""
        named = vars(self).items()
        return {name: value for name, value in named if name != "at" and value is not None}


def active(switches: Iterable[Switch], moment: Moment) -> dict[str, Any]:
    """Return the settings that have been switched to by now; of two for one, the later.

    Examples
    --------
    >>> longer = Switch(at=0.5, sequence_length=512)
    >>> [active([longer], Moment(step=step, steps=10)) for step in (4, 5)]
    [{}, {'sequence_length': 512}]
    """
    settings: dict[str, Any] = {}
    for each in sorted(switches, key=lambda switch: switch.at):
        settings |= each.settings if moment.progress >= each.at else {}
    return settings
