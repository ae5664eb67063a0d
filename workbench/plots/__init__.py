"""Figures: one noun through the stack, Dataset in, complete plotly Figure out; and the page."""

from workbench.plots.ablation import ablation
from workbench.plots.alpha_curve import alpha_curve
from workbench.plots.by_run import by_run, join_runs
from workbench.plots.by_visit import activation, attention, by_visit, residual
from workbench.plots.checkpoints import checkpoints
from workbench.plots.components import components
from workbench.plots.damping import damping
from workbench.plots.effective_rank import effective_rank
from workbench.plots.embedding import embedding
from workbench.plots.intervention import intervention, intervention_curve
from workbench.plots.logit_lens import logit_lens
from workbench.plots.logit_prior import logit_prior
from workbench.plots.mixing import mixing
from workbench.plots.page import Part, Section, page
from workbench.plots.profile_targets import profile_targets
from workbench.plots.quantization import frontier, quantization, survival
from workbench.plots.rank_corners import rank_corners
from workbench.plots.routing_audit import routing_audit
from workbench.plots.routing_records import routing_records
from workbench.plots.spectrum import spectrum, truncation
from workbench.plots.token_detail import calibration, position_loss, text_strip
from workbench.plots.token_loss import parts, token_loss
from workbench.plots.training import training
from workbench.plots.unigram_prior import unigram_prior
from workbench.plots.value_residual import value_residual
from workbench.plots.view import View

__all__ = [
    "Part",
    "Section",
    "View",
    "ablation",
    "activation",
    "alpha_curve",
    "attention",
    "by_run",
    "by_visit",
    "calibration",
    "checkpoints",
    "components",
    "damping",
    "effective_rank",
    "embedding",
    "frontier",
    "intervention",
    "intervention_curve",
    "join_runs",
    "logit_lens",
    "logit_prior",
    "mixing",
    "page",
    "parts",
    "position_loss",
    "profile_targets",
    "quantization",
    "rank_corners",
    "residual",
    "routing_audit",
    "routing_records",
    "spectrum",
    "survival",
    "text_strip",
    "token_loss",
    "training",
    "truncation",
    "unigram_prior",
    "value_residual",
]
