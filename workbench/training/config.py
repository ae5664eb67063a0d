"""How long and how to train, checked before anything is made."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from workbench.folder import InputError, check_known, made
from workbench.training.averages import AverageConfig
from workbench.training.objectives import ObjectiveConfig, objective_config
from workbench.training.optimizers import OptimizerConfig, optimizer_config
from workbench.training.schedule import Switch, group_settings, schedule

# Rates made for fresh weights undo what trained ones know.
CONTINUED: dict[str, Any] = {"learning_rate_factor": 0.1, "warmup_steps": 20}
WARMDOWN = 0.3  # of the run, where nothing is said


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how to train."""

    steps: int = 200  # updates at most
    seconds: float | None = None  # time budget; the warmdown then follows time
    tokens_per_step: int = 4096
    sequence_length: int = 256
    micro_batches: int = 8  # spans a packed stream gives to one step, each a token longer
    tokens_per_pass: int = 2048  # of one forward pass; changes speed and memory, not the result
    learning_rate_factor: float = 1.0  # on every rate of the optimizer
    warmup_steps: int = 0  # first updates, over which the learning rate rises from 0
    warmdown_steps: int = 60  # last updates, over which it falls to `floor`
    warmdown_share: float = 0.0  # the same as a share of the run, in place of steps; 0: not used
    decay: str = "linear"  # shape of the fall: linear, cosine or one_minus_sqrt
    floor: float = 0.0  # where it ends, as a share of the full rate
    by_group: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # what differs by kind
    passes: int | None = None  # of blocks that recur; None: as many as the model has
    quantize_bits: int | None = None  # round matrices to a row's widest grid in every forward pass
    switches: tuple[Switch, ...] = ()  # settings taken on late
    average: AverageConfig = field(default_factory=AverageConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    seed: int = 0  # of the order of records; a packed stream has no random order
    device: str = "cpu"
    compile: bool = False  # model and objective, before the first step; see `compiled`
    processes: int = 1  # that share every update, one a GPU; see `distributed`
    dtype: str = "float32"  # of the forward pass; weights stay float32
    validate_every: int = 50  # steps; 0: only at the end
    validation_tokens: int = 65536  # scored at each of these; the final evaluation takes all
    checkpoints: int = 8  # kept besides step 0, evenly spaced
    measure_every: int = 10  # steps between measurements of updates and of noise; 0: never
    resume_seconds: float = 30.0  # between files to continue from

    def __post_init__(self) -> None:
        counts = "steps micro_batches processes tokens_per_step tokens_per_pass sequence_length"
        self._check(counts, lambda count: count >= 1, "1 or more", "Raise it.")
        late = "warmup_steps warmdown_steps validate_every checkpoints measure_every"
        self._check(late, lambda count: count >= 0, "0 or more", "Raise it.")
        self._check(
            "learning_rate_factor",
            lambda factor: 0 < factor < math.inf,
            "a positive number (write 0.001)",
            "Take 1 for the rates as they stand.",
        )
        self._check(
            "seconds",
            lambda seconds: seconds is None or 0 < seconds < math.inf,
            "a positive time or null",
            "Leave it out to train by steps.",
        )
        self._check(
            "dtype",
            ("float32", "bfloat16").__contains__,
            "float32 or bfloat16",
            "float16 is not supported: its range needs loss scaling.",
        )
        self._check_late()
        for settings in group_settings(self).values():
            schedule(**settings)  # refuses what it does not know

    def _check(
        self, names: str, is_fine: Callable[[Any], bool], expected: str, remedy: str
    ) -> None:
        """Refuse the first of some fields that is not fine."""
        for name in names.split():
            found = getattr(self, name)
            if not is_fine(found):
                raise InputError(name, expected=expected, found=str(found), remedy=remedy)

    def _check_late(self) -> None:
        """Refuse what the model would be asked to do late and could not."""
        late = [each.settings for each in self.switches]
        for name, allowed in {"quantize_bits": range(2, 9), "passes": range(1, 65)}.items():
            given = [each[name] for each in (vars(self), *late) if each.get(name) is not None]
            if not all(type(each) is int and each in allowed for each in given):
                wanted, remedy = f"{allowed[0]} to {allowed[-1]}", "Change the number."
                raise InputError(name, expected=wanted, found=str(given), remedy=remedy)
        if self.passes is None and any("passes" in each for each in late):
            expected, found = "how many are taken before the switch", "none said"
            raise InputError("passes", expected=expected, found=found, remedy="Set passes to 1.")


def train_config(
    *,
    optimizer: Mapping[str, Any],
    objective: Mapping[str, Any] | None = None,
    average: Mapping[str, Any] | None = None,
    switches: Sequence[Mapping[str, Any]] = (),
    device: str = "auto",
    dtype: str = "auto",
    start: Mapping[str, Any] | None = None,
    **settings: Any,
) -> TrainConfig:
    """Make the configuration from plain values, as a notebook or a command line has them.

    ``device="auto"`` is cuda where there is one; ``dtype="auto"`` is bfloat16 on cuda. Passes are
    sized for the device unless `tokens_per_pass` is given; on cuda they are compiled unless
    `compile` says not. The warmdown is the last 30 % of the run, by steps or by time, unless its
    length is given. Where `start`, from `judge_start`, says that the weights are trained, the
    settings of `CONTINUED` are the defaults. A setting of None is as good as none.

    Raises
    ------
    InputError
        If a value is out of range, or the device is not there.
    """
    available = torch.cuda.is_available()
    if device != "auto" and device.split(":")[0] not in ("cpu", "cuda"):
        raise InputError(
            f"device {device!r}",
            expected="cpu, cuda or auto",
            found=repr(device),
            remedy="Set device to auto.",
        )
    chosen = ("cuda" if available else "cpu") if device == "auto" else device
    if chosen.startswith("cuda") and not available:
        raise InputError(
            "device",
            expected="cuda with a GPU that torch can use",
            found="no such GPU",
            remedy="Set device to cpu, or install a CUDA build of torch (see environment.yml).",
        )
    if dtype == "auto":
        dtype = "bfloat16" if chosen.startswith("cuda") else "float32"
    _known("training", settings)
    settings = {name: value for name, value in settings.items() if value is not None}
    half = int(settings.get("steps", TrainConfig.steps)) // 2
    if start and start["trained"]:
        settings = CONTINUED | {"warmup_steps": min(CONTINUED["warmup_steps"], half)} | settings
    if not settings.keys() & {"warmdown_steps", "warmdown_share"}:
        settings |= {"warmdown_steps": 0, "warmdown_share": WARMDOWN}
    optimizer = {"momentum_warmup_steps": min(OptimizerConfig.momentum_warmup_steps, half)} | dict(
        optimizer
    )
    # A processor wants activations in its cache, a GPU wants to be full.
    settings.setdefault("tokens_per_pass", 65536 if chosen.startswith("cuda") else 2048)
    settings.setdefault("compile", chosen.startswith("cuda"))
    return TrainConfig(
        optimizer=optimizer_config(**optimizer),
        objective=objective_config(**(objective or {})),
        average=made(AverageConfig, average or {}, what="average"),
        switches=tuple(made(Switch, each, what="switch") for each in switches),
        device=chosen,
        dtype=dtype,
        **settings,
    )


def recorded_config(training: Mapping[str, Any], changes: Mapping[str, Any]) -> TrainConfig:
    """Make the configuration of a run again from its record, with some fields changed.

    Raises
    ------
    InputError
        If a field is unknown or its value out of range.
    """
    known = _known("changes", changes)
    given = {name: value for name, value in {**training, **changes}.items() if name in known}
    if "warmdown_steps" in changes and "warmdown_share" not in changes:
        given["warmdown_share"] = 0.0  # or the share would go before the steps
    nested = ("optimizer", "objective", "average")
    for name in nested:
        if not isinstance(changes.get(name, {}), Mapping):
            remedy = f"Write {{{name}: {{...}}}}."
            found = repr(changes[name])
            raise InputError(name, expected="fields and values", found=found, remedy=remedy)
    merged = {name: {**training.get(name, {}), **changes.get(name, {})} for name in nested}
    return train_config(**{**given, **merged})


def _known(where: str, names: Iterable[str]) -> list[str]:
    """Return the fields of `TrainConfig`, or refuse the first name that is none of them."""
    known = [each.name for each in fields(TrainConfig)]
    check_known(names, known, what=f"{where} field")
    return known
