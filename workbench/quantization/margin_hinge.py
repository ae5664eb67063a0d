"""Keep critical tokens ahead of their rivals by more than quantisation can take.

A refusal, a brace, a field name: a few tokens must win where they should, after quantisation too.
A hinge asks of each such decision a margin that is measured, twice the logit noise of the very
quantiser that is deployed; a second hinge keeps these tokens silent elsewhere.

References
----------
.. [1] Mishra and Mehreen, 2026, https://arxiv.org/abs/2601.15538: a hinge of half a step against
   quantisation. That a step of the weights bounds no logit is why the noise is measured here.
"""

import torch
from torch import Tensor

SHARE = 0.99  # of the changes of logits that the noise covers
SAFETY = 1.25  # of the margin over twice the noise


def logit_noise(exact: Tensor, quantized: Tensor) -> float:
    """Return what 99 per cent of the logits (..., V) move by at most between two models."""
    moved = (quantized - exact).abs().flatten().float()
    return float(moved.kthvalue(max(1, int(SHARE * moved.numel()))).values)


def measured_margin(exact: Tensor, quantized: Tensor) -> float:
    """Return the margin at which a winner survives: both logits may move towards each other."""
    return SAFETY * 2 * logit_noise(exact, quantized)


def margin_hinge(
    logits: Tensor, targets: Tensor, critical: Tensor, *, margin: float, guard: float = 0.0
) -> Tensor:
    """Sum what critical decisions lack of their margin, and what false ones exceed.

    Parameters
    ----------
    logits : (..., V) float tensor
    targets : (...) int64 tensor
        Negative where nothing is scored.
    critical : (n,) int64 tensor
        Token ids that must win where they are the target, and nowhere else.
    margin : float
        By which a critical target should lead its best rival, see `measured_margin`.
    guard : float
        By which another target should lead the loudest critical token.

    Returns
    -------
    scalar tensor
        Zero, with no gradient, once every margin is kept.
    """
    scored = targets >= 0
    z, wanted = logits[scored].float(), targets[scored]
    own = z.gather(-1, wanted[:, None])[:, 0]
    rival = z.scatter(-1, wanted[:, None], -torch.inf).amax(dim=-1)
    is_critical = torch.isin(wanted, critical)
    loud = z[:, critical].amax(dim=-1)
    lacking = torch.where(is_critical, margin - (own - rival), guard - (own - loud))
    return lacking.clamp(min=0).sum()


def survival(exact: Tensor, quantized: Tensor, targets: Tensor, critical: Tensor) -> dict[str, int]:
    """Count critical decisions before and after quantisation.

    Returns
    -------
    dict of str to int
        ``critical``: positions whose target is critical; ``right``: won before; ``kept``: won
        before and after; ``false``: others where a critical token wins after.
    """
    scored = targets >= 0
    wanted = targets[scored]
    before, after = (each[scored].argmax(dim=-1) for each in (exact, quantized))
    is_critical = torch.isin(wanted, critical)
    right = is_critical & (before == wanted)
    return {
        "critical": int(is_critical.sum()),
        "right": int(right.sum()),
        "kept": int((right & (after == wanted)).sum()),
        "false": int((~is_critical & torch.isin(after, critical)).sum()),
    }
