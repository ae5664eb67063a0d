"""Muon: momentum whose singular values are pushed towards 1, for the matrices of a network.

References
----------
.. [1] Jordan et al., Muon, 2024, https://kellerjordan.github.io/posts/muon/
.. [2] Amsel et al., The Polar Express, 2025, https://arxiv.org/abs/2505.16932
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Of the odd quintic of each iteration; the last is repeated where there are more iterations.
COEFFICIENTS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "standard": ((3.4445, -4.7750, 2.0315),),
    "polar_express": (
        (8.1566, -22.4833, 15.8788),
        (4.0429, -2.8089, 0.5000),
        (3.8917, -2.7725, 0.5061),
        (3.2858, -2.3681, 0.4645),
        (2.3465, -1.7098, 0.4232),
    ),
}


def orthogonalize(
    update: Tensor,
    *,
    steps: int = 5,
    dtype: torch.dtype = torch.float32,
    coefficients: str = "standard",
) -> Tensor:
    """Push the singular values of matrices towards 1 by Newton-Schulz iteration.

    Parameters
    ----------
    update : (..., rows, columns) tensor
    steps : int
        Iterations. Five bring every singular value above a hundredth of the Frobenius norm to
        about 0.7 to 1.2 (standard) or 0.85 to 1.15 (Polar Express); a zero matrix stays zero.
    dtype : torch.dtype
        Arithmetic of the iteration.
    coefficients : str
        A key of `COEFFICIENTS`.

    Returns
    -------
    (..., rows, columns) tensor of `dtype`
    """
    quintics = COEFFICIENTS[coefficients]
    x = update.to(dtype).reshape(-1, *update.shape[-2:])
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for step in range(steps):
        a, b, c = quintics[min(step, len(quintics) - 1)]
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).reshape(update.shape)


class Muon(torch.optim.Optimizer):
    """Momentum, then orthogonalised updates; equal shapes are orthogonalised together.

    A parameter without gradient is passed over: no update, no decay, no memory.

    Parameters
    ----------
    params : iterable
        Matrices, or groups of them.
    lr : float
        Times ``sqrt(max(1, rows / columns))``.
    momentum : float
        Of Nesterov's kind.
    weight_decay : float
        Decoupled: a matrix is multiplied by ``1 - lr * weight_decay`` before its update.
    steps : int
        Newton-Schulz iterations.
    coefficients : str
        A key of `COEFFICIENTS`.
    dtype : str
        Arithmetic of the iteration, or ``auto``: bfloat16 on cuda, else float32.
    normalize_rows : bool
        Divide each row by its norm before the iteration.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        steps: int = 5,
        coefficients: str = "standard",
        dtype: str = "auto",
        normalize_rows: bool = False,
    ) -> None:
        settings: dict[str, Any] = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        settings |= {"steps": steps, "coefficients": coefficients, "dtype": dtype}
        settings["normalize_rows"] = normalize_rows
        super().__init__(params, settings)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update to every parameter that has a gradient."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape, parameter.dtype, parameter.device].append(parameter)
            for parameters in alike.values():
                self._step_alike(parameters, group)

    def _step_alike(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update parameters of one shape, dtype and device in one batched iteration."""
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, grads)
        nesterov = torch.stack(grads)
        torch._foreach_add_(nesterov.unbind(), buffers, alpha=group["momentum"])
        if group["normalize_rows"]:
            nesterov = F.normalize(nesterov, dim=-1, eps=1e-7)
        # Processors without matrix units for bfloat16 are many times slower with it.
        fast = "bfloat16" if nesterov.is_cuda else "float32"
        dtype = getattr(torch, fast if group["dtype"] == "auto" else group["dtype"])
        settings = {"steps": group["steps"], "coefficients": group["coefficients"]}
        whitened = orthogonalize(nesterov, dtype=dtype, **settings)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        rows, columns = parameters[0].shape
        scale = max(1.0, rows / columns) ** 0.5
        updates = whitened.to(parameters[0].dtype).unbind()
        torch._foreach_add_(parameters, updates, alpha=-group["lr"] * scale)
