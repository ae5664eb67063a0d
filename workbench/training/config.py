"""How long and how to train, checked before anything is made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from workbench.folder import InputError
from workbench.training.optimizers import OptimizerConfig, optimizer_config

# Rates made for fresh weights undo what trained ones know.
CONTINUED = {"learning_rate_factor": 0.1, "warmup_steps": 20}


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
    warmdown_steps: int = 60  # last updates, over which it falls to 0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    seed: int = 0  # of the order of records; a packed stream has no random order
    device: str = "cpu"
    dtype: str = "float32"  # of the forward pass; weights stay float32
    validate_every: int = 50  # steps; 0: only at the end
    validation_tokens: int = 65536  # scored at each of these; the final evaluation takes all
    checkpoints: int = 8  # kept besides step 0, evenly spaced

    def __post_init__(self) -> None:
        tokens = ("tokens_per_step", "tokens_per_pass", "sequence_length")
        for name in ("steps", "micro_batches", *tokens):
            if getattr(self, name) < 1:
                raise InputError(
                    name, expected="1 or more", found=str(getattr(self, name)), remedy="Raise it."
                )
        counts = ("warmup_steps", "warmdown_steps", "validate_every", "checkpoints")
        if min(getattr(self, name) for name in counts) < 0:
            raise InputError(
                ", ".join(counts),
                expected="0 or more",
                found="a negative number",
                remedy="Raise it.",
            )
        if not 0 < self.learning_rate_factor < float("inf"):
            raise InputError(
                "learning_rate_factor",
                expected="a positive number (write 0.001)",
                found=str(self.learning_rate_factor),
                remedy="Take 1 for the rates as they stand.",
            )
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise InputError(
                "seconds",
                expected="a positive time or null",
                found=str(self.seconds),
                remedy="Leave it out to train by steps.",
            )
        if self.dtype not in ("float32", "bfloat16"):
            raise InputError(
                "dtype",
                expected="float32 or bfloat16",
                found=self.dtype,
                remedy="float16 is not supported: its range needs loss scaling.",
            )


def train_config(
    *,
    optimizer: Mapping[str, Any],
    device: str = "auto",
    dtype: str = "auto",
    start: Mapping[str, Any] | None = None,
    **settings: Any,
) -> TrainConfig:
    """Make the configuration from plain values, as a notebook or a command line has them.

    ``device="auto"`` is cuda where there is one; ``dtype="auto"`` is bfloat16 on cuda. Passes are
    sized for the device unless `tokens_per_pass` is given. Where `start`, from `judge_start`, says
    that the weights are trained, the settings of `CONTINUED` are the defaults. A setting of None
    is as good as none.

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
    settings = {name: value for name, value in settings.items() if value is not None}
    settings = (CONTINUED if start and start["trained"] else {}) | settings
    half = int(settings.get("steps", TrainConfig.steps)) // 2
    optimizer = {"momentum_warmup_steps": min(OptimizerConfig.momentum_warmup_steps, half)} | dict(
        optimizer
    )
    # A processor wants activations in its cache, a GPU wants to be full.
    settings.setdefault("tokens_per_pass", 65536 if chosen.startswith("cuda") else 2048)
    return TrainConfig(
        optimizer=optimizer_config(**optimizer), device=chosen, dtype=dtype, **settings
    )
