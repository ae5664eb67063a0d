"""What is measured of a network while it trains, without waiting for its device.

References
----------
.. [1] McCandlish et al., An Empirical Model of Large-Batch Training, 2018,
   https://arxiv.org/abs/1812.06162 (gradient noise scale).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

SAMPLED = 65536  # entries of a matrix whose update is measured, in whole rows


def norms_by_kind(groups: Iterable[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return the norm of the gradients of each kind of parameter group."""
    kinds: dict[str, list[Tensor]] = {}
    for group in groups:
        found = (p.grad for p in group["params"] if p.grad is not None)
        kinds.setdefault(group["kind"], []).extend(found)
    return {kind: torch.nn.utils.get_total_norm(each) for kind, each in kinds.items() if each}


def noise(squares: Sequence[Tensor], whole: Tensor, sizes: Sequence[int]) -> dict[str, Any]:
    """Estimate how large the gradient is, and how much of what was seen is chance.

    Parameters
    ----------
    squares : sequence of scalar tensors
        Squared norm of the mean gradient of each forward pass of a step.
    whole : scalar tensor
        Squared norm of the mean gradient of the step.
    sizes : sequence of int
        Targets in each pass.

    Returns
    -------
    dict of str to scalar tensor
        Unbiased, and rough in one step: ``gradient_variance``, of the gradient of a single target,
        summed over parameters, and ``gradient_square``, of the expected gradient. The ratio of
        their means over many steps is the gradient noise scale [token]: batches far below it are
        mostly noise, batches far above it waste text.
    """
    size, total = sum(sizes) / len(sizes), sum(sizes)
    small = torch.stack(list(squares)).mean()
    return {
        "gradient_variance": (small - whole) / (1 / size - 1 / total),
        "gradient_square": (total * whole - size * small) / (total - size),
    }


class Updates:
    """Compare sampled rows of every matrix before and after an update.

    Parameters
    ----------
    named : iterable of (str, Parameter)
        Those that are about to be updated.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        self.parameters = {name: each for name, each in named if each.ndim > 1}
        self.before = [rows(each).clone() for each in self.parameters.values()]

    def result(self) -> dict[str, Any]:
        """Return ratios of norms, and the share of entries that stayed as they were."""
        if not self.before:
            return {}
        pairs = zip(self.parameters.values(), self.before, strict=True)
        changes = [rows(parameter) - old for parameter, old in pairs]
        moved, size = (
            torch.stack(torch._foreach_norm([each.float() for each in tensors]))
            for tensors in (changes, self.before)
        )
        entries = sum(each.numel() for each in changes)
        still = sum(entries_still.float() for entries_still in map(_zeros, changes)) / entries
        return {
            "update_ratio": moved.norm() / size.norm(),
            "update_ratio_by_matrix": dict(zip(self.parameters, moved / size, strict=True)),
            "zero_update_share": still,
        }


def rows(parameter: Tensor) -> Tensor:
    """View rows of a matrix, evenly spaced, that hold about `SAMPLED` entries."""
    return parameter.detach()[:: parameter.numel() // SAMPLED + 1]


def _zeros(change: Tensor) -> Tensor:
    """Count the entries that are zero."""
    return change.numel() - change.count_nonzero()


def learned_scalars(model: nn.Module) -> dict[str, float]:
    """Return every learned scalar, and the mean of every learned vector of scales.

    Names are the parameter's, with an index for scalars (``blocks.0.attn.q_gain.2``) and
    ``.mean`` for per-channel vectors (``blocks.0.attn_scale.mean``).
    """
    return named_scalars(scalar_names(model), scalar_values(model).tolist())


def named_scalars(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """Join names and values, rounded as they are logged."""
    return {name: round(value, 6) for name, value in zip(names, values, strict=True)}


def _scalars(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that are no matrices, and the two matrices of scales."""
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.ndim < 2 or "resid_mix" in name or "skip_weights" in name
    }


def scalar_names(model: nn.Module) -> list[str]:
    """Name the values of `scalar_values`."""
    names: list[str] = []
    for name, tensor in _scalars(model).items():
        if name.endswith(("q_gain", "alpha")):
            names += [f"{name}.{index}" for index in range(tensor.numel())]
        else:
            count = len(tensor) if tensor.ndim > 1 else 1
            names += [f"{name}.{i}.mean" if count > 1 else f"{name}.mean" for i in range(count)]
    return names


def scalar_values(model: nn.Module) -> Tensor:
    """Return learned scalars, and means of learned vectors, as one tensor on their device."""
    values = [
        tensor.float().reshape(-1)
        if name.endswith(("q_gain", "alpha"))
        else tensor.float().reshape(-1, *tensor.shape[-1:] or (1,)).mean(dim=1)
        for name, tensor in _scalars(model).items()
    ]
    return torch.cat(values or [torch.empty(0)])


def first_not_finite(model: nn.Module) -> str:
    """Name the first parameter, else gradient, that holds a NaN or an infinity."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"weight {name}"
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"gradient of {name}"
    return "the loss itself"
