"""Muon for the matrices inside blocks, Adam with decoupled weight decay for everything else."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from workbench.folder import made
from workbench.training.muon import COEFFICIENTS, Muon

CHOICES = {
    "newton_schulz": tuple(COEFFICIENTS),
    "newton_schulz_dtype": ("auto", "bfloat16", "float32"),
}


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Learning rates, decay and momenta of the parameter groups."""

    matrix_lr: float = 0.04  # Muon, matrices inside blocks
    scalar_lr: float = 0.04  # Adam, vectors and scalars
    tied_embedding_lr: float = 0.05  # Adam, embedding that is also the head
    embedding_lr: float = 0.6  # Adam, embedding with an untied head
    head_lr: float = 0.008  # Adam, untied head
    weight_decay: float = 0.0  # share of a matrix lost in an update, times the learning rate
    embedding_weight_decay: float = 0.0  # the same of embedding and head; scalars never decay
    momentum: float = 0.95
    momentum_start: float = 0.85  # momentum rises linearly from here ...
    momentum_warmup_steps: int = 500  # ... over this many steps
    momentum_period: int = 0  # or goes up and down between them over this many; 0: it does not
    newton_schulz: str = "standard"  # coefficients, or polar_express
    newton_schulz_steps: int = 5
    newton_schulz_dtype: str = "auto"  # bfloat16, float32, or auto: bfloat16 on cuda alone
    normalize_rows: bool = False  # of the update, before Newton-Schulz
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    clip_grad_norm: float = 0.0  # 0: off

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if name in CHOICES:
                if value not in CHOICES[name]:
                    raise ValueError(f"{name} must be one of {CHOICES[name]}, got {value!r}")
            # YAML reads 1e-3 as text; NaN fails too.
            elif not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a number from 0 (write 0.001), got {value!r}")

    def momentum_at(self, step: int) -> float:
        """Return Muon's momentum for the update after `step` updates: a rise, or a triangle.

        Examples
        --------
        >>> cycle = OptimizerConfig(momentum_period=50)
        >>> [round(cycle.momentum_at(step), 3) for step in (0, 5, 25, 45, 50)]
        [0.85, 0.87, 0.95, 0.87, 0.85]
        """
        if self.momentum_period:
            share = 1 - abs(2 * (step % self.momentum_period) / self.momentum_period - 1)
        elif self.momentum_warmup_steps:
            share = min(step / self.momentum_warmup_steps, 1.0)
        else:
            share = 1.0
        return (1 - share) * self.momentum_start + share * self.momentum


def optimizer_config(**settings: Any) -> OptimizerConfig:
    """Make the configuration from plain values, naming the nearest key for an unknown one."""
    return made(OptimizerConfig, settings, what="optimizer")


def optimizers(
    model: nn.Module,
    config: OptimizerConfig,
    *,
    extra: Iterable[tuple[str, nn.Parameter]] = (),
) -> list[torch.optim.Optimizer]:
    """Put every parameter into exactly one group: matrix, embedding, head or scalar.

    A frozen parameter is in its group too. It has no gradient, so it stays as it is, decay
    included, and moves once it is thawed.

    Parameters
    ----------
    model : Network
    config : OptimizerConfig
    extra : iterable of (name, parameter)
        Weights of an objective. Those with two dimensions are matrices, prediction heads too.

    Returns
    -------
    list of Optimizer
        Muon first, then one Adam. Each group keeps its full rate as ``base_lr`` and what it
        holds as ``kind``.

    Raises
    ------
    ValueError
        If a parameter belongs to no group, where it would stay at its start in silence, or to two.
    """
    named = [(n, p, _kind(n, p)) for n, p in model.named_parameters(remove_duplicate=False)]
    named += [(n, p, "matrix" if p.ndim == 2 else "scalar") for n, p in extra]
    placed: dict[nn.Parameter, str] = {}
    for name, parameter, kind in named:
        if kind is None:
            raise ValueError(f"no optimizer group for {name!r}; name one in training.optimizers")
        if placed.setdefault(parameter, kind) != kind:
            raise ValueError(f"{name!r} is in two optimizer groups: {placed[parameter]} and {kind}")
    tied = "head" not in placed.values()
    embedding_lr = config.tied_embedding_lr if tied else config.embedding_lr
    rates = {
        "matrix": (config.matrix_lr, config.weight_decay),
        "embedding": (embedding_lr, config.embedding_weight_decay),
        "head": (config.head_lr, config.embedding_weight_decay),
        "scalar": (config.scalar_lr, 0.0),
    }
    groups = []
    for kind, (rate, decay) in rates.items():
        some = [parameter for parameter in placed if placed[parameter] == kind]
        settings = {"kind": kind, "lr": rate, "base_lr": rate, "weight_decay": decay}
        groups += [{"params": some, **settings}] if some else []
    muon = Muon(
        [group for group in groups if group["kind"] == "matrix"],
        lr=config.matrix_lr,
        momentum=config.momentum_at(0),
        steps=config.newton_schulz_steps,
        coefficients=config.newton_schulz,
        dtype=config.newton_schulz_dtype,
        normalize_rows=config.normalize_rows,
    )
    adam = torch.optim.Adam(
        [group for group in groups if group["kind"] != "matrix"],
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        decoupled_weight_decay=True,  # as AdamW
        fused=True,
    )
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
