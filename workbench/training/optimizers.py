"""Muon for the matrices inside blocks, Adam for everything else.

References
----------
.. [1] Jordan et al., Muon, 2024, https://kellerjordan.github.io/posts/muon/
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from workbench.folder import InputError, nearest

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that pushes singular values towards 1


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Learning rates and momenta of the parameter groups."""

    matrix_lr: float = 0.04  # Muon, matrices inside blocks
    scalar_lr: float = 0.04  # Adam, vectors and scalars
    tied_embedding_lr: float = 0.05  # Adam, embedding that is also the head
    embedding_lr: float = 0.6  # Adam, embedding with an untied head
    head_lr: float = 0.008  # Adam, untied head
    momentum: float = 0.95
    momentum_start: float = 0.85  # momentum rises linearly from here ...
    momentum_warmup_steps: int = 500  # ... over this many steps
    newton_schulz_steps: int = 5
    newton_schulz_dtype: str = "auto"  # bfloat16, float32, or auto: bfloat16 on cuda alone
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    clip_grad_norm: float = 0.0  # 0: off

    def __post_init__(self) -> None:
        if self.newton_schulz_dtype not in ("auto", "bfloat16", "float32"):
            raise ValueError(
                "newton_schulz_dtype must be auto, bfloat16 or float32, "
                f"got {self.newton_schulz_dtype!r}"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "newton_schulz_dtype":
                continue
            # YAML reads 1e-3 as text; NaN fails too.
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(
                    f"{field.name} must be a number from 0 (write 0.001), got {value!r}"
                )

    def momentum_at(self, step: int) -> float:
        """Return Muon's momentum for the update after `step` updates."""
        share = min(step / self.momentum_warmup_steps, 1.0) if self.momentum_warmup_steps else 1.0
        return (1 - share) * self.momentum_start + share * self.momentum


def optimizer_config(**settings: Any) -> OptimizerConfig:
    """Make the configuration from plain values, naming the nearest key for an unknown one."""
    known = [field.name for field in fields(OptimizerConfig)]
    for key in settings:
        if key not in known:
            raise InputError(
                f"optimizer key {key!r}",
                expected="a field of OptimizerConfig",
                found=repr(key),
                remedy=nearest(key, known),
            )
    try:
        return OptimizerConfig(**settings)
    except (TypeError, ValueError) as error:
        raise InputError(
            "optimizer", expected="valid settings", found=str(error), remedy="Change the value."
        ) from error


def orthogonalize(update: Tensor, *, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """Push the singular values of matrices towards 1 by Newton-Schulz iteration.

    Parameters
    ----------
    update : (..., rows, columns) tensor
    steps : int
        Iterations; five leave singular values in about 0.7 to 1.2.
    dtype : torch.dtype
        Arithmetic of the iteration.

    Returns
    -------
    (..., rows, columns) tensor of `dtype`
    """
    a, b, c = COEFFICIENTS
    x = update.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, then orthogonalised updates; equal shapes are orthogonalised together."""

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        steps: int = 5,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            list(params), {"lr": lr, "momentum": momentum, "steps": steps, "dtype": dtype}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update to every parameter that has a gradient."""
        for group in self.param_groups:
            shapes = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[parameter.shape].append(parameter)
            for parameters in shapes.values():
                self._step_shape(parameters, group)

    def _step_shape(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update parameters of one shape in one batched iteration."""
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, grads)
        nesterov = torch._foreach_add(grads, buffers, alpha=group["momentum"])
        # Processors without matrix units for bfloat16 are many times slower with it.
        fast = torch.bfloat16 if parameters[0].is_cuda else torch.float32
        whitened = orthogonalize(
            torch.stack(list(nesterov)), steps=group["steps"], dtype=group["dtype"] or fast
        )
        rows, columns = parameters[0].shape
        scale = max(1.0, rows / columns) ** 0.5
        updates = list(whitened.to(parameters[0].dtype).unbind())
        torch._foreach_add_(parameters, updates, alpha=-group["lr"] * scale)


def optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Put every parameter into exactly one group: Muon, embedding, head or scalars.

    Returns
    -------
    list of Optimizer
        Muon first, then one Adam. Each group keeps its full rate as ``base_lr``.

    Raises
    ------
    ValueError
        If a parameter belongs to no group; it would stay at its start in silence.
    """
    named = dict(model.named_parameters())
    kinds = {name: _kind(name, parameter) for name, parameter in named.items()}
    unknown = [name for name, kind in kinds.items() if kind is None]
    if unknown:
        raise ValueError(f"no optimizer group for {unknown}; name one in training.optimizers")
    tied = "lm_head.weight" not in named
    rates = {
        "embedding": config.tied_embedding_lr if tied else config.embedding_lr,
        "head": config.head_lr,
        "scalar": config.scalar_lr,
    }
    of_kind = {kind: [named[n] for n in named if kinds[n] == kind] for kind in ("matrix", *rates)}
    chosen = config.newton_schulz_dtype
    muon = Muon(
        of_kind["matrix"],
        lr=config.matrix_lr,
        momentum=config.momentum_at(0),
        steps=config.newton_schulz_steps,
        dtype=None if chosen == "auto" else getattr(torch, chosen),
    )
    groups = [{"params": of_kind[kind], "lr": rates[kind]} for kind in rates if of_kind[kind]]
    adam = torch.optim.Adam(
        groups, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True
    )
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return [muon, adam]


def _kind(name: str, parameter: Tensor) -> str | None:
    """Name the group of a parameter, or None."""
    if name == "tok_emb.weight":
        return "embedding"
    if name == "lm_head.weight":
        return "head"
    if name.startswith("blocks."):
        matrix = parameter.ndim == 2 and "resid_mix" not in name
        return "matrix" if matrix else "scalar"
    if name in ("skip_weights", "lm_bias", "final_norm.weight") or name.startswith(
        "value_residual."
    ):
        return "scalar"
    return None
