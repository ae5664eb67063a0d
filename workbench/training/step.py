"""One update: the gradient of a batch, pass by pass, and what the optimizers make of it."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

from workbench.quantization import straight_through, widest_grid
from workbench.text import IGNORED
from workbench.training.config import TrainConfig
from workbench.training.distributed import place, share
from workbench.training.ledger import check_finite
from workbench.training.measure import Updates, noise, norms_by_kind, scalar_values
from workbench.training.objectives import Objective
from workbench.training.resume import Parts

Batch = tuple[np.ndarray, np.ndarray]


class Learner(nn.Module):
    """A model with its objective: what is compiled, and what processes share."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model: Any = model
        self.objective = objective
        self.bits: int | None = None  # of the grid that matrices are rounded to
        self.matrices: list[str] = []

    def take(self, config: TrainConfig) -> None:
        """Compute from now on as a configuration has it, after a switch perhaps."""
        if config.passes:
            self.model.take_passes(config.passes)
        if config.quantize_bits and not self.matrices:
            ids = {id(matrix.weight) for matrix in self.model.matrices()}
            self.matrices = [n for n, each in self.model.named_parameters() if id(each) in ids]
        self.bits = config.quantize_bits

    def forward(
        self, inputs: Tensor, targets: Tensor, *, as_given: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the summed loss [nat] of targets (B, T), or that and the plain one."""
        if self.bits is None or as_given:
            return self.objective(self.model, inputs, targets)
        rounded = {}
        for name in self.matrices:
            weight = self.model.get_parameter(name)
            rounded[f"model.{name}"] = straight_through(weight, widest_grid(weight, bits=self.bits))
        answer: Tensor = functional_call(self, rounded, (inputs, targets), {"as_given": True})
        return answer


def update(
    learner: nn.Module,
    batch: Batch,
    parts: Parts,
    config: TrainConfig,
    *,
    step: int,
    scales: Mapping[str, float],
) -> dict[str, Any]:
    """Learn from one batch; return what was measured, tensors not yet read off the device.

    Parameters
    ----------
    learner : Module
        A `Learner`, as it is or wrapped.
    batch : pair of (B, T) int64 arrays
    parts : Parts
        The model behind it, and its optimizers.
    step : int
        Updates done before.
    scales : mapping
        Share of the full rate, by kind of parameter group.
    """
    measured = config.measure_every and (not step or (step + 1) % config.measure_every == 0)
    line = gradient(learner, batch, config, with_noise=bool(measured))
    groups = [group for each in parts.optimizers for group in each.param_groups]
    moving = [p for group in groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in moving])
    if not norm.is_cuda:  # before the weights are touched; a GPU is not waited for
        numbers = {"loss": float(line["loss"]), "gradient norm": float(norm)}
        check_finite(parts.model, step + 1, numbers)
    if "squares" in line:
        line |= noise(line.pop("squares"), norm.square(), line.pop("sizes"))
    line["grad_norm"] = norm
    if limit := config.optimizer.clip_grad_norm:
        line["clipped"] = norm > limit
        torch.nn.utils.clip_grads_with_norm_(moving, limit, norm)
    momentum = config.optimizer.momentum_at(step)
    if measured:
        line["grad_norm_by_kind"] = norms_by_kind(groups)
        updates = Updates((parts.names[each], each) for each in moving)
    for group in groups:
        group["lr"] = group["base_lr"] * config.learning_rate_factor * scales[group["kind"]]
        if "momentum" in group:
            group["momentum"] = momentum
    for each in parts.optimizers:
        each.step()
        each.zero_grad(set_to_none=True)
    line |= {"momentum": momentum, "scalars": scalar_values(parts.model)}
    return line | (updates.result() if measured else {})


def gradient(
    learner: nn.Module, batch: Batch, config: TrainConfig, *, with_noise: bool = False
) -> dict[str, Any]:
    """Accumulate the gradient of a batch over forward passes, and over processes.

    Returns
    -------
    dict of str to Any
        ``loss`` [nat/token], ``counted`` targets, and with noise, where there are two passes or
        more and one process, ``squares`` and ``sizes`` for `measure.noise`.
    """
    learner.train()
    inner: Any = getattr(learner, "module", learner)  # of one that processes share
    inner.take(config)
    rank, processes = place()
    own = [share(part, rank, processes) for part in batch]
    inputs, targets = (_moved(part, config.device) for part in own)
    rows = max(1, config.tokens_per_pass // inputs.shape[1])
    wanted = [own[1][first : first + rows] for first in range(0, len(inputs), rows)]
    sizes = [int((part != IGNORED).sum()) for part in wanted]
    counted = int((batch[1] != IGNORED).sum())
    total = torch.zeros((), device=config.device)
    is_noise_seen = with_noise and len(sizes) > 1 and all(sizes) and processes == 1
    apart = _Apart(learner, counted) if is_noise_seen else None
    alone = getattr(learner, "no_sync", nullcontext)  # gradients are exchanged in the last pass
    passes = zip(inputs.split(rows), targets.split(rows), sizes, strict=True)
    for left, (some, targets_of_pass, size) in zip(range(len(sizes))[::-1], passes, strict=True):
        with alone() if left else nullcontext():
            with torch.autocast(
                some.device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"
            ):
                answer = learner(some, targets_of_pass)
            trained, plain = answer if isinstance(answer, tuple) else (answer, answer)
            (trained / (counted / processes)).backward()  # of processes, the mean is taken
        total += plain.detach() / counted
        if apart is not None:
            apart.take(size)
    if processes > 1:
        dist.all_reduce(total)
    line = {"loss": total, "counted": counted}
    return line if apart is None else line | {"squares": apart.done(), "sizes": sizes}


class _Apart:
    """Add up the gradients of passes as autograd does, and note the norm of each."""

    def __init__(self, learner: nn.Module, counted: int) -> None:
        self.parameters = [each for each in learner.parameters() if each.requires_grad]
        self.counted, self.squares = counted, list[Tensor]()
        self.sums: dict[nn.Parameter, Tensor] = {}

    def take(self, size: int) -> None:
        """Take the gradient of a pass over `size` targets off the parameters."""
        found = {each: each.grad for each in self.parameters if each.grad is not None}
        norm = torch.nn.utils.get_total_norm(list(found.values()))
        self.squares.append((norm * (self.counted / size)).square())
        for parameter, grad in found.items():
            if parameter in self.sums:
                self.sums[parameter] += grad
            else:
                self.sums[parameter] = grad
            parameter.grad = None

    def done(self) -> list[Tensor]:
        """Put the sums where the optimizers look, and return the squared norms."""
        for parameter, grad in self.sums.items():
            parameter.grad = grad
        return self.squares


def _moved(part: np.ndarray, device: str) -> Tensor:
    """Send ids to the device; from pinned memory, a GPU is not waited for."""
    tensor = torch.from_numpy(part)
    return tensor.pin_memory().to(device, non_blocking=True) if "cuda" in device else tensor
