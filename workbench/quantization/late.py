"""Late quantisation-aware training: the last updates see the weights that will be exported.

The forward pass computes with the values of the exporter's own grid, the gradient passes straight
through. How much of the quantised values is taken is a tensor, so that a compiled step cannot
freeze it at what it was when first traced.

References
----------
.. [1] Bengio et al., Estimating or Propagating Gradients Through Stochastic Neurons, 2013,
   https://arxiv.org/abs/1308.3432 (straight-through estimator).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from workbench.quantization.grid import TINY, Grid, rounded, shrunken, stored_half

Objective = Callable[..., Tensor]
BEGIN = 0.15  # learning-rate multiplier below which the quantised values are taken


@dataclass(frozen=True, kw_only=True)
class LateQuantization:
    """What makes the end of a training quantisation-aware: ``objective`` and ``watch`` of `train`.

    Examples
    --------
    ``late = LateQuantization(grids=grids)`` and then
    ``train(..., objective=late.wrap(next_token_loss), watch=late.watch)``.
    """

    grids: Mapping[str, Grid]  # by parameter, fixed: export with `nearest` on the same
    begin: float = BEGIN
    blend: Tensor = field(default_factory=lambda: torch.zeros(()))  # 0: float weights, 1: quantised

    highest: Tensor = field(default_factory=lambda: torch.zeros(()))  # multiplier so far

    def watch(self, line: Mapping[str, Any]) -> None:
        """Take the quantised values once the learning rate has come down far enough."""
        multiplier = line["learning_rate_multiplier"]
        if multiplier < min(self.begin, float(self.highest)):  # a warmup is low too, but rises
            self.blend.fill_(1.0)
        self.highest.clamp_(min=multiplier)

    def wrap(self, objective: Objective) -> Objective:
        """Return the objective of a model that computes with the blended weights."""

        def quantized(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
            return objective(partial(functional_call, model, self.values(model)), inputs, targets)

        return quantized

    def values(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the blended weights by name; gradients pass through as if nothing was rounded."""
        named = dict(model.named_parameters())
        grids = self.grids.items()
        return {name: straight_through(named[name], grid, blend=self.blend) for name, grid in grids}


def straight_through(weight: Tensor, grid: Grid, *, blend: Tensor | float = 1.0) -> Tensor:
    """Move a weight (R, C) to its quantised value, or part of the way; the gradient passes."""
    held = weight.detach().float()
    steps = grid.steps(weight.shape[1]).to(weight.device)
    codes = rounded(torch.where(steps > 0, held / steps.clamp(min=TINY), 0), grid)
    share = torch.as_tensor(blend, device=weight.device)
    value = torch.lerp(held, shrunken(codes, grid) * steps, share)
    return value + (weight - held)  # of nothing: the value stays exact


def widest_grid(weight: Tensor, *, bits: int) -> Grid:
    """Make the grid of `integer_grid` that clips nothing, without looking at what it is given."""
    limit = 2 ** (bits - 1) - 1
    reach = weight.detach().float().abs().amax(dim=1, keepdim=True)
    return Grid(row_scale=stored_half(reach / limit), limit=limit)
