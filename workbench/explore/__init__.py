"""Panels for notebooks: choose, and look. All numbers come from the parts below."""

from workbench.explore.choose import RunChooser, choose_run
from workbench.explore.effective_rank import effective_rank
from workbench.explore.intervention import intervention
from workbench.explore.live import Live, live
from workbench.explore.logit_prior import logit_prior
from workbench.explore.panel import Panel
from workbench.explore.pin import pin
from workbench.explore.quantization import quantization
from workbench.explore.routing_audit import routing_audit
from workbench.explore.subject import Subject
from workbench.explore.token_loss import token_loss
from workbench.explore.value_residual import value_residual

__all__ = [
    "Live",
    "Panel",
    "RunChooser",
    "Subject",
    "choose_run",
    "effective_rank",
    "intervention",
    "live",
    "logit_prior",
    "pin",
    "quantization",
    "routing_audit",
    "token_loss",
    "value_residual",
]
