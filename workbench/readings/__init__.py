"""One or two sentences that say what a result shows, computed from it and never canned.

They are the captions of figures and the summary of ``diagnose``. A reading names where the extreme
is, its number, what it is compared with and what that suggests; it speaks of attribution, not of
cause, and says so where the data cannot carry a judgement.
"""

import xarray as xr

from workbench.readings.effective_rank import effective_rank
from workbench.readings.logit_prior import logit_prior
from workbench.readings.phrasing import printable, visible
from workbench.readings.routing_audit import judgeable, routing_audit
from workbench.readings.self_test import self_test
from workbench.readings.token_loss import token_loss
from workbench.readings.training import logged, training
from workbench.readings.value_residual import value_residual

__all__ = [
    "effective_rank",
    "judgeable",
    "logged",
    "logit_prior",
    "printable",
    "reading",
    "routing_audit",
    "self_test",
    "token_loss",
    "training",
    "value_residual",
    "visible",
]


def reading(name: str, ds: xr.Dataset) -> str:
    """Say what the result of the diagnostic `name` shows.

    It is the function of that name in this part; a diagnostic without one has its variables listed.
    """
    said = globals().get(name)
    if said is None:
        return f"measured {', '.join(map(str, ds.data_vars))} over {', '.join(map(str, ds.dims))}."
    text: str = said(ds)
    return text
