"""Figures: one noun through the stack, Dataset in, complete plotly Figure out; and the page."""

from workbench.plots.effective_rank import effective_rank
from workbench.plots.logit_prior import logit_prior
from workbench.plots.page import Part, Section, page
from workbench.plots.routing_audit import routing_audit
from workbench.plots.token_loss import token_loss
from workbench.plots.training import training
from workbench.plots.value_residual import value_residual

__all__ = [
    "Part",
    "Section",
    "effective_rank",
    "logit_prior",
    "page",
    "routing_audit",
    "token_loss",
    "training",
    "value_residual",
]
