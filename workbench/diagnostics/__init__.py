"""Model and text in, labelled Dataset out."""

from workbench.diagnostics.ablation import ablation
from workbench.diagnostics.activation import activation
from workbench.diagnostics.alive import Recipe, alive
from workbench.diagnostics.alpha_curve import alpha_curve, mix_cost
from workbench.diagnostics.annotated import annotated, worded
from workbench.diagnostics.attention import attention
from workbench.diagnostics.branch import BranchStates, branch_states, mean_hidden
from workbench.diagnostics.calibration import calibration
from workbench.diagnostics.cells import loss_cells
from workbench.diagnostics.checks import Check, check_table
from workbench.diagnostics.components import components
from workbench.diagnostics.confusions import confusions
from workbench.diagnostics.coverage import at_step, coverage_history
from workbench.diagnostics.damping import damping, final_states
from workbench.diagnostics.diagnose import diagnose, diagnostics, save_diagnosis
from workbench.diagnostics.effective_rank import effective_rank
from workbench.diagnostics.embedding import embedding
from workbench.diagnostics.envelope import Plan, envelope, plan_checks
from workbench.diagnostics.frontier import frontier
from workbench.diagnostics.head_rank import head_rank
from workbench.diagnostics.intervention import (
    Intervention,
    Trial,
    fixed,
    intervention_cost,
    scaled,
    site_means,
    targets,
    together,
    trial,
)
from workbench.diagnostics.ladder import ladder
from workbench.diagnostics.localisation import probe
from workbench.diagnostics.logit_prior import explain, explain_chosen, logit_prior
from workbench.diagnostics.margin import mean_parts, what_to_mend
from workbench.diagnostics.mixing import mixing, scalars
from workbench.diagnostics.pace import step_seconds, translated
from workbench.diagnostics.position_loss import position_loss
from workbench.diagnostics.prediction import chosen_states
from workbench.diagnostics.preflight import preflight, preflight_of, refuse
from workbench.diagnostics.quantization import culprits, quantization
from workbench.diagnostics.reachable import reachable
from workbench.diagnostics.reference import ngrams, reference
from workbench.diagnostics.residual import residual
from workbench.diagnostics.role_conflict import role_conflict
from workbench.diagnostics.routing_audit import (
    audit_checkpoints,
    audit_sample,
    routing_audit,
)
from workbench.diagnostics.routing_records import routing_records
from workbench.diagnostics.sample import Rows, Sample, as_rows, sample
from workbench.diagnostics.self_test import self_test
from workbench.diagnostics.spectrum import (
    gaussian_effective_rank,
    power_law,
    singular_values,
    spectra,
    spectral_ranks,
    spectral_shape,
)
from workbench.diagnostics.sweep import Reducer, sweep
from workbench.diagnostics.token_difference import paired, seed_results, token_difference
from workbench.diagnostics.token_loss import token_loss
from workbench.diagnostics.truncation import truncation
from workbench.diagnostics.value_residual import value_residual

__all__ = [
    "BranchStates",
    "Check",
    "Intervention",
    "Plan",
    "Recipe",
    "Reducer",
    "Rows",
    "Sample",
    "Trial",
    "ablation",
    "activation",
    "alpha_curve",
    "annotated",
    "as_rows",
    "at_step",
    "attention",
    "audit_checkpoints",
    "alive",
    "audit_sample",
    "branch_states",
    "calibration",
    "check_table",
    "chosen_states",
    "components",
    "confusions",
    "coverage_history",
    "culprits",
    "damping",
    "diagnose",
    "diagnostics",
    "effective_rank",
    "embedding",
    "envelope",
    "explain",
    "explain_chosen",
    "final_states",
    "fixed",
    "frontier",
    "gaussian_effective_rank",
    "head_rank",
    "intervention_cost",
    "ladder",
    "logit_prior",
    "loss_cells",
    "mean_hidden",
    "mean_parts",
    "mix_cost",
    "mixing",
    "ngrams",
    "paired",
    "plan_checks",
    "position_loss",
    "power_law",
    "preflight",
    "preflight_of",
    "probe",
    "quantization",
    "reachable",
    "reference",
    "residual",
    "role_conflict",
    "refuse",
    "routing_audit",
    "routing_records",
    "sample",
    "save_diagnosis",
    "scalars",
    "scaled",
    "seed_results",
    "self_test",
    "singular_values",
    "site_means",
    "spectra",
    "spectral_ranks",
    "spectral_shape",
    "step_seconds",
    "sweep",
    "targets",
    "together",
    "token_difference",
    "token_loss",
    "translated",
    "trial",
    "truncation",
    "value_residual",
    "what_to_mend",
    "worded",
]
