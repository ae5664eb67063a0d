"""Model and text in, labelled Dataset out."""

from workbench.diagnostics.branch import BranchStates, branch_states, mean_hidden
from workbench.diagnostics.diagnose import DIAGNOSTICS, Sample, diagnose, save_diagnosis
from workbench.diagnostics.effective_rank import (
    effective_rank,
    gaussian_effective_rank,
    singular_values,
    spectral_ranks,
)
from workbench.diagnostics.logit_prior import explain, logit_prior, pressure_by_profile
from workbench.diagnostics.routing_audit import routing_audit
from workbench.diagnostics.self_test import self_test
from workbench.diagnostics.token_loss import token_loss
from workbench.diagnostics.value_residual import value_residual

__all__ = [
    "DIAGNOSTICS",
    "BranchStates",
    "Sample",
    "branch_states",
    "diagnose",
    "effective_rank",
    "explain",
    "gaussian_effective_rank",
    "logit_prior",
    "mean_hidden",
    "pressure_by_profile",
    "routing_audit",
    "save_diagnosis",
    "self_test",
    "singular_values",
    "spectral_ranks",
    "token_loss",
    "value_residual",
]
