"""Averages of weights, kept beside a model while it is trained.

References
----------
.. [1] Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992,
   https://doi.org/10.1137/0330046
.. [2] Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, 2018,
   https://arxiv.org/abs/1803.05407 (SWA).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.folder import InputError


@dataclass(frozen=True, kw_only=True)
class AverageConfig:
    """Which average, and over what."""

    kind: str = "none"  # none, ema (exponential, of every step) or swa (uniform, of a few)
    decay: float = 0.98  # ema: share of the average that a step leaves; 1 / (1 - decay) steps long
    every: int = 50  # swa: steps between the states it takes ...
    below: float = 0.4  # ... once the learning-rate multiplier has fallen below this

    def __post_init__(self) -> None:
        shares = 0 <= self.decay < 1 and 0 < self.below <= 1
        if self.kind not in ("none", "ema", "swa") or self.every < 1 or not shares:
            expected = "kind none, ema or swa; decay in [0, 1), below in (0, 1], every from 1"
            remedy = "Change the value."
            raise InputError("average", expected=expected, found=str(self), remedy=remedy)


class Average:
    """The average of a model's weights, in float32 on the model's device.

    The first state that is taken is the average so far; of kind none, it stays empty.
    """

    def __init__(self, model: nn.Module, config: AverageConfig) -> None:
        named = model.named_parameters() if config.kind != "none" else ()
        self.config, self.n_averaged, self.highest = config, 0, 0.0
        self.mean = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in named}

    @torch.no_grad()
    def update(self, model: nn.Module, *, step: int, multiplier: float) -> None:
        """Take the weights in, if they are due.

        Parameters
        ----------
        step : int
            Updates done, from 1.
        multiplier : float
            Share of the full learning rate that the last of them took.
        """
        is_low = multiplier < min(self.config.below, self.highest)  # a warmup is low too, but rises
        self.highest = max(self.highest, multiplier)
        is_swa = self.config.kind == "swa"
        if not self.mean or (is_swa and (step % self.config.every or not is_low)):
            return
        self.n_averaged += 1
        share = 1 / self.n_averaged if is_swa or self.n_averaged == 1 else 1 - self.config.decay
        states = [parameter.detach().float() for parameter in model.parameters()]
        torch._foreach_lerp_(list(self.mean.values()), states, share)

    def tensors(self) -> dict[str, Tensor]:
        """Return all that it holds by name, without copies."""
        counts = torch.tensor([self.n_averaged, self.highest], dtype=torch.float64)
        named = {"counts": counts, **self.mean}
        return {f"{self.config.kind}.{name}": tensor for name, tensor in named.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a copy of what `tensors` gave; an average of another kind begins anew."""
        kind = self.config.kind
        if f"{kind}.counts" in tensors:
            n_averaged, self.highest = tensors[f"{kind}.counts"].tolist()
            self.n_averaged = int(n_averaged)
            for name, mean in self.mean.items():
                mean.copy_(tensors[f"{kind}.{name}"])

    def weights(self) -> dict[str, Tensor]:
        """Return the averaged weights by name, without copies; none before the first is taken."""
        return dict(self.mean) if self.n_averaged else {}
