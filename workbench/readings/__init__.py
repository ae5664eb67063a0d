"""One or two sentences that say what a result shows, computed from it and never canned.

They are the captions of figures and the summary of ``diagnose``. A reading names where the extreme
is, its number, what it is compared with and what that suggests; it speaks of attribution, not of
cause, and says so where the data cannot carry a judgement.
"""

import xarray as xr

from workbench.readings.ablation import ablation, intervention, intervention_curve
from workbench.readings.activation import activation
from workbench.readings.attention import attention
from workbench.readings.components import components
from workbench.readings.damping import damping
from workbench.readings.effective_rank import effective_rank
from workbench.readings.evaluation import evaluation
from workbench.readings.frontier import artifacts, cheapest, frontier
from workbench.readings.logit_lens import logit_lens
from workbench.readings.logit_prior import logit_prior, what_to_mend
from workbench.readings.metrics import Metrics, logged, noise_scale, scalar_kind, tabled
from workbench.readings.mixing import mixing
from workbench.readings.phrasing import printable, visible
from workbench.readings.preflight import (
    checks,
    deployment,
    memory,
    pace,
    parameters,
    phases,
    size,
)
from workbench.readings.quantization import (
    culprits,
    predictors,
    quantization,
    quantized_bytes,
    quantized_tokens,
    survival,
)
from workbench.readings.rank_evidence import rank_corners, rank_evidence, rank_map
from workbench.readings.residual import residual
from workbench.readings.role_conflict import role_conflict
from workbench.readings.routing_audit import (
    checkpoints,
    judgeable,
    profile_targets,
    promotion,
    routing_audit,
    routing_records,
)
from workbench.readings.self_test import self_test
from workbench.readings.spectrum import embedding, head_rank, heads, spectrum, truncation
from workbench.readings.token_detail import (
    calibration,
    confusions,
    parts,
    position_loss,
    text_strip,
    why,
)
from workbench.readings.token_loss import token_loss
from workbench.readings.training import training
from workbench.readings.unigram_prior import unigram_prior
from workbench.readings.value_residual import alpha_curve, value_residual

__all__ = [
    "Metrics",
    "ablation",
    "activation",
    "alpha_curve",
    "artifacts",
    "cheapest",
    "attention",
    "calibration",
    "checkpoints",
    "checks",
    "components",
    "confusions",
    "culprits",
    "damping",
    "deployment",
    "effective_rank",
    "embedding",
    "evaluation",
    "frontier",
    "head_rank",
    "heads",
    "intervention",
    "intervention_curve",
    "judgeable",
    "logged",
    "logit_lens",
    "logit_prior",
    "memory",
    "mixing",
    "noise_scale",
    "pace",
    "parameters",
    "phases",
    "parts",
    "position_loss",
    "predictors",
    "printable",
    "profile_targets",
    "promotion",
    "quantization",
    "quantized_bytes",
    "quantized_tokens",
    "rank_corners",
    "rank_evidence",
    "rank_map",
    "reading",
    "residual",
    "role_conflict",
    "routing_audit",
    "routing_records",
    "scalar_kind",
    "self_test",
    "size",
    "spectrum",
    "survival",
    "tabled",
    "text_strip",
    "token_loss",
    "training",
    "truncation",
    "unigram_prior",
    "value_residual",
    "visible",
    "what_to_mend",
    "why",
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
