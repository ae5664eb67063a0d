"""Optimizers, schedule and the training loop."""

from workbench.training.adopt import adopt, compare_recorded, read_foreign
from workbench.training.begin import begin
from workbench.training.config import TrainConfig, train_config
from workbench.training.guard import Diverged, divergence_guard
from workbench.training.loop import (
    NonFiniteLoss,
    judge_start,
    learned_scalars,
    next_token_loss,
    train,
)
from workbench.training.optimizers import (
    Muon,
    OptimizerConfig,
    optimizer_config,
    optimizers,
    orthogonalize,
)
from workbench.training.schedule import multiplier
from workbench.training.watch import Watched, watch

__all__ = [
    "Diverged",
    "Muon",
    "NonFiniteLoss",
    "OptimizerConfig",
    "TrainConfig",
    "Watched",
    "adopt",
    "begin",
    "compare_recorded",
    "divergence_guard",
    "judge_start",
    "learned_scalars",
    "multiplier",
    "next_token_loss",
    "optimizer_config",
    "optimizers",
    "orthogonalize",
    "read_foreign",
    "train",
    "train_config",
    "watch",
]
