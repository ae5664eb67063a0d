"""Optimizers, schedule and the training loop."""

from workbench.training.adopt import adopt, compare_recorded, read_foreign
from workbench.training.averages import Average, AverageConfig
from workbench.training.begin import begin, check_passes, reopen
from workbench.training.config import TrainConfig, recorded_config, train_config
from workbench.training.distributed import WorkerFailed
from workbench.training.forecast import PEAKS, pass_shape, training_bytes
from workbench.training.guard import Diverged, divergence_guard
from workbench.training.ledger import NonFiniteLoss
from workbench.training.loop import judge_start, train
from workbench.training.measure import learned_scalars
from workbench.training.muon import Muon, orthogonalize
from workbench.training.objectives import (
    CrossEntropy,
    ObjectiveConfig,
    next_token_loss,
    objective_config,
)
from workbench.training.optimizers import OptimizerConfig, optimizer_config, optimizers
from workbench.training.phases import Phase, phases
from workbench.training.resume import branch
from workbench.training.schedule import Moment, Switch, schedule
from workbench.training.watch import Watched, watch

__all__ = [
    "Average",
    "AverageConfig",
    "CrossEntropy",
    "Diverged",
    "Muon",
    "NonFiniteLoss",
    "ObjectiveConfig",
    "Moment",
    "OptimizerConfig",
    "Phase",
    "Switch",
    "PEAKS",
    "TrainConfig",
    "Watched",
    "WorkerFailed",
    "adopt",
    "begin",
    "branch",
    "check_passes",
    "compare_recorded",
    "divergence_guard",
    "judge_start",
    "learned_scalars",
    "next_token_loss",
    "objective_config",
    "optimizer_config",
    "optimizers",
    "phases",
    "schedule",
    "orthogonalize",
    "pass_shape",
    "read_foreign",
    "recorded_config",
    "reopen",
    "train",
    "train_config",
    "training_bytes",
    "watch",
]
