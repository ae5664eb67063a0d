"""Model and text in, labelled Dataset out."""

from workbench.diagnostics.branch import BranchStates, branch_states, mean_hidden
from workbench.diagnostics.diagnose import diagnose, diagnostics, save_diagnosis
from workbench.diagnostics.effective_rank import (
    effective_rank,
    gaussian_effective_rank,
    singular_values,
    spectral_ranks,
)
from workbench.diagnostics.intervention import (
    Intervention,
    fixed,
    intervention_cost,
    scaled,
    site_means,
    together,
)
from workbench.diagnostics.logit_prior import explain, logit_prior, pressure_by_profile
from workbench.diagnostics.routing_audit import routing_audit
from workbench.diagnostics.sample import Rows, Sample, as_rows, sample
from workbench.diagnostics.self_test import self_test
from workbench.diagnostics.sweep import Reducer, sweep
from workbench.diagnostics.token_loss import token_loss
from workbench.diagnostics.value_residual import value_residual

__all__ = [
    "BranchStates",
    "Intervention",
    "Reducer",
    "Rows",
    "Sample",
    "as_rows",
    "branch_states",
    "diagnose",
    "diagnostics",
    "effective_rank",
    "explain",
    "fixed",
    "gaussian_effective_rank",
    "intervention_cost",
    "logit_prior",
    "mean_hidden",
    "pressure_by_profile",
    "routing_audit",
    "sample",
    "save_diagnosis",
    "scaled",
    "self_test",
    "singular_values",
    "site_means",
    "spectral_ranks",
    "sweep",
    "together",
    "token_loss",
    "value_residual",
]
