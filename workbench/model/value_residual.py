"""Value residual: later attention mixes in a value computed earlier.

``value <- value + a * source`` (form ``add``) or ``value <- (1 - a) * value + a * source`` (form
``blend``). Every visit but the first has its own learned alpha; the *effective* mix ``a`` is
alpha itself or its sigmoid.

References
----------
.. [1] Zhou et al., Value Residual Learning, 2024, https://arxiv.org/abs/2410.17897
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ValueResidualConfig:
    """How an earlier value enters later attention."""

    form: Literal["add", "blend"] = "add"
    gate: Literal["linear", "sigmoid"] = "linear"  # effective mix: alpha itself, or its sigmoid
    source: Literal["first", "previous"] = "first"  # value of visit 0, or of the visit before
    init: float = 0.5  # alpha at step 0, before the gate

    def __post_init__(self) -> None:
        choices = {
            "form": ("add", "blend"),
            "gate": ("linear", "sigmoid"),
            "source": ("first", "previous"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")


class ValueResidual(nn.Module):
    """Learned mixing of an earlier value, one alpha a visit after the first."""

    def __init__(self, config: ValueResidualConfig, n_visit: int) -> None:
        super().__init__()
        self.config = config
        self.alpha = nn.Parameter(torch.full((max(n_visit - 1, 0),), float(config.init)))

    def effective(self) -> Tensor:
        """Return the mix that is applied, ``(visit - 1,)``: alpha after its gate."""
        return self.alpha.sigmoid() if self.config.gate == "sigmoid" else self.alpha

    def forward(self, value: Tensor, source: Tensor, visit: int) -> Tensor:
        """Mix `source` into `value`, both ``(B, H, T, D)``, for a visit from 1 on."""
        a = self.effective()[visit - 1].to(value.dtype)
        if self.config.form == "blend":
            return (1 - a) * value + a * source
        return value + a * source
