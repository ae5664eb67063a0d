"""Optimizers, schedule and the training loop."""

from workbench.training.begin import begin
from workbench.training.config import TrainConfig, train_config
from workbench.training.guard import Diverged, divergence_guard
from workbench.training.loop import NonFiniteLoss, learned_scalars, next_token_loss, train
from workbench.training.optimizers import (
    Muon,
    OptimizerConfig,
    optimizer_config,
    optimizers,
    orthogonalize,
)
from workbench.training.schedule import multiplier

__all__ = [
    "Diverged",
    "Muon",
    "NonFiniteLoss",
    "OptimizerConfig",
    "TrainConfig",
    "begin",
    "divergence_guard",
    "learned_scalars",
    "multiplier",
    "next_token_loss",
    "optimizer_config",
    "optimizers",
    "orthogonalize",
    "train",
    "train_config",
]
