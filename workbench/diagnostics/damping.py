"""What if the model kept less of its output bias, or of its prior? Asked of cached hidden states.

Only the head is run again, so an answer takes a moment. Unlike the split of a margin this is an
intervention, on a head that was trained with both parts whole.

Letters: ``N`` scored targets, ``C`` channels, ``V`` vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from workbench.diagnostics.sample import Diagnostic, Rows, Sample
from workbench.model import Network
from workbench.result import check, variable
from workbench.text import TOKEN_CLASSES

KEPT = (0.0, 0.25, 0.5, 0.75, 0.9)
CURVES = (*((kept, 1.0) for kept in KEPT), (1.0, 1.0), *((1.0, kept) for kept in KEPT[::-1]))
LOGITS = 2**22  # held at a time


def final_states(model: Network, rows: Rows) -> Tensor:
    """Return the hidden states (N, C) that the scored targets of `rows` are predicted from."""
    with torch.inference_mode():
        return model.hidden(rows.inputs)[rows.targets >= 0].float()


def damping(
    model: Network,
    rows: Rows,
    *,
    mu: NDArray[np.float64],
    hidden: Tensor,
    settings: Sequence[tuple[float, float]] = CURVES,
) -> xr.Dataset:
    """Score cached hidden states with part of the prior and of the output bias taken away.

    Logits before the softcap become ``bias_kept * b + w . (h - (1 - prior_kept) * mu)``.

    Parameters
    ----------
    model : Network
        Its head is used, and left as it is.
    rows : Rows
        See `Sample.rows`.
    mu : (channel,) float64
        Mean hidden state of a reference text.
    hidden : (N, C) tensor
        `final_states` of the same rows.
    settings : sequence of (prior_kept, bias_kept)
        Shares that are kept; ``(1, 1)`` is the model.

    Returns
    -------
    Dataset
        Dims ``setting, token_class``: `change` and its paired `change_standard_error` over groups,
        `change_by_class` (sums to `change`) [bit/byte], and `flips`, predictions that change their
        winner; coords `prior_kept`, `bias_kept`; attrs ``tokens`` and ``bits_per_byte`` of the
        model as it is.
    """
    targets, size = rows.targets[rows.targets >= 0], rows.bytes.sum()
    base, own = _score(model, hidden, targets, np.zeros_like(mu), 1.0)
    found, by_class = [], []
    for prior, bias in settings:
        losses, winner = _score(model, hidden, targets, (1 - prior) * mu, bias)
        bits = (losses - base) / np.log(2)
        found.append((*rows.ratio(bits), (winner != own).sum()))
        by_class.append(np.bincount(rows.token_class, bits, minlength=len(TOKEN_CLASSES)) / size)
    change, errors, flips = np.array(found, dtype=float).T
    data = {
        "change": variable("setting", change, "bits per byte added", "bit/byte"),
        "change_standard_error": variable("setting", errors, "its paired error", "bit/byte"),
        "flips": variable("setting", flips, "predictions with another winner"),
        "change_by_class": variable(
            ("setting", "token_class"), by_class, "bits per byte added", "bit/byte"
        ),
    }
    prior_kept, bias_kept = np.array(settings).T
    coords = {"prior_kept": ("setting", prior_kept), "bias_kept": ("setting", bias_kept)}
    coords |= {"token_class": ("token_class", list(TOKEN_CLASSES))}
    attrs = {"tokens": len(base), "bits_per_byte": float(base.sum() / np.log(2) / size)}
    return check(xr.Dataset(data, coords, attrs))


def _score(
    model: Network, hidden: Tensor, targets: Tensor, less: NDArray[np.float64], bias_kept: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return losses (N,) [nat] and winners (N,), a few logits at a time."""
    weight = model.head_weight.detach().float()
    shift = -weight @ torch.from_numpy(less).to(weight)  # (V,)
    if model.output_bias is not None:
        shift = shift + bias_kept * model.output_bias.detach().float()
    losses, winners = [], []
    for part in torch.arange(len(hidden)).split(max(1, LOGITS // len(weight))):
        span = slice(int(part[0]), int(part[-1]) + 1)
        logits = model.capped(F.linear(hidden[span], weight, shift))
        losses.append(F.cross_entropy(logits, targets[span], reduction="none").double())
        winners.append(logits.argmax(dim=-1))
    return torch.cat(losses).cpu().numpy(), torch.cat(winners).cpu().numpy()


def _measure(sample: Sample) -> xr.Dataset:
    """Draw the curves of prior and bias for a sample."""
    hidden = final_states(sample.model, sample.rows)
    settings = CURVES if sample.model.output_bias is not None else CURVES[: len(KEPT) + 1]
    mu, _ = sample.reference
    return damping(sample.model, sample.rows, mu=mu, hidden=hidden, settings=settings)


DIAGNOSTIC = Diagnostic(tier="intervention", measure=_measure, sites=("final_norm",))
