"""Rotary position embedding in the half-split layout, and its stretching to longer contexts."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How frequencies are lowered to reach further than the context of training.

    ``linear`` divides all of them by `factor`. ``llama3`` leaves those that turn more than
    `high_frequency_factor` times within `original_context` tokens, divides those that turn less
    than `low_frequency_factor` times, and blends in between.
    """

    type: Literal["linear", "llama3"]
    factor: float
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context: int = 8192  # tokens

    def __post_init__(self) -> None:
        if self.type not in ("linear", "llama3"):
            raise ValueError(f"type must be linear or llama3, got {self.type!r}")
        low, high = self.low_frequency_factor, self.high_frequency_factor
        if not (1 <= self.factor < math.inf and 0 < low < high and self.original_context > 0):
            raise ValueError(f"factor from 1, 0 < low < high and a context, got {self}")

    def scaled(self, frequency: Tensor) -> Tensor:
        """Lower frequencies [radian/token]."""
        if self.type == "linear":
            return frequency / self.factor
        low, high = self.low_frequency_factor, self.high_frequency_factor
        turns = self.original_context * frequency / (2 * math.pi)
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return (1 - kept) * frequency / self.factor + kept * frequency


class Rotary(nn.Module):
    """Turn pairs of channels of a head by `direction` times position times frequency."""

    def __init__(
        self, d_head: int, base: float, *, direction: int = -1, scaling: RopeScaling | None = None
    ) -> None:
        super().__init__()
        # Not from a checkpoint, so it must be real where the parameters are not ("meta").
        exponent = torch.arange(0, d_head, 2, dtype=torch.float32, device="cpu") / d_head
        frequency = 1.0 / base**exponent
        self.direction = direction
        self.frequency: Tensor
        scaled = frequency if scaling is None else scaling.scaled(frequency)
        self.register_buffer("frequency", scaled, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Rotate ``(B, H, T, D)``."""
        position = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)
        angle = torch.outer(position, self.frequency) * self.direction  # (T, D / 2)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
