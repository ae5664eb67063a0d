"""Lines of ``metrics.jsonl``: measured on the device, written and judged together.

Reading a number off a GPU makes the processor wait for everything before it. Lines are therefore
kept as they are measured and brought over at once, a few times a second; on a processor, where
nothing waits, after every step.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workbench.folder import RunFolder, append_jsonl
from workbench.training.measure import first_not_finite, named_scalars, scalar_names

Watch = Callable[[Mapping[str, Any]], None]
PAUSE = 0.5  # s between readings of a GPU


class NonFiniteLoss(RuntimeError):
    """Training met a NaN or an infinity; says at which step and in which tensor."""


class Ledger:
    """Write lines of measurements, and show each to those who watch.

    Parameters
    ----------
    run : RunFolder
    model : nn.Module
        Named in the message where a number is not finite.
    watchers : sequence of callable
        Called with every line once its numbers are known.
    """

    def __init__(self, run: RunFolder, model: nn.Module, watchers: Sequence[Watch]) -> None:
        self.run, self.model, self.watchers = run, model, watchers
        self.names = scalar_names(model)
        self.pending: list[dict[str, Any]] = []
        self.latest = time.perf_counter()

    def add(self, line: dict[str, Any]) -> None:
        """Take a line; numbers in it may be tensors."""
        self.pending.append(line)
        if not line["scalars"].is_cuda or self.is_due():
            self.flush()

    def is_due(self) -> bool:
        """Tell whether it is time to read a GPU again."""
        return time.perf_counter() - self.latest > PAUSE

    def flush(self) -> None:
        """Bring the numbers over, check and write them, and show them.

        Raises
        ------
        NonFiniteLoss
            At the first line that holds a NaN or an infinity; lines before it are written.
        """
        lines, self.pending, self.latest = self.pending, [], time.perf_counter()
        for line in settled(lines):
            line["scalars"] = named_scalars(self.names, line["scalars"])
            if ratios := line.get("update_ratio_by_matrix"):  # a matrix of zeros has none
                finite = {name: each for name, each in ratios.items() if np.isfinite(each)}
                line["update_ratio_by_matrix"] = finite
            check_finite(self.model, line["step"], flat(line))
            append_jsonl(self.run.metrics, line)
            for watch in self.watchers:
                watch(line)


class Pace:
    """Keep the processor at most one update ahead of a GPU, so that steps take the time they take.

    Parameters
    ----------
    device : str
        Where the model is; on a processor there is nothing to wait for.
    """

    def __init__(self, device: str) -> None:
        self.is_gpu = "cuda" in device
        self.before: torch.cuda.Event | None = None

    def wait(self, *, through: bool) -> None:
        """Wait for the update before this one, or `through` this one."""
        if self.is_gpu:
            ended = torch.cuda.Event()
            ended.record()
            (ended if through or self.before is None else self.before).synchronize()
            self.before = ended


def settled(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Replace the tensors in lines by numbers, in one transfer."""
    tensors = [tensor for line in lines for tensor in _tensors(line)]
    if not tensors:
        return list(lines)
    together = torch.cat([tensor.detach().double().reshape(-1) for tensor in tensors]).tolist()
    ends = np.cumsum([tensor.numel() for tensor in tensors])
    starts = [0, *ends[:-1]]
    parts = iter(
        together[start:end] if tensor.ndim else _number(together[start], tensor.dtype)
        for tensor, start, end in zip(tensors, starts, ends, strict=True)
    )
    return [_filled(line, parts) for line in lines]


def _number(value: float, dtype: torch.dtype) -> bool | float:
    """Return a truth value as such."""
    return bool(value) if dtype == torch.bool else value


def _tensors(value: Any) -> list[Tensor]:
    """List the tensors in nested dicts, in order."""
    if isinstance(value, dict):
        return [tensor for each in value.values() for tensor in _tensors(each)]
    return [value] if isinstance(value, Tensor) else []


def _filled(value: Any, parts: Any) -> Any:
    """Put numbers where tensors were, in the same order."""
    if isinstance(value, dict):
        return {name: _filled(each, parts) for name, each in value.items()}
    return next(parts) if isinstance(value, Tensor) else value


def flat(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line by name, nested ones too."""
    found: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            found |= {f"{name} {inner}": number for inner, number in flat(value).items()}
        elif isinstance(value, int | float):
            found[name.replace("_", " ")] = value
    return found


def check_finite(model: nn.Module, step: int, values: Mapping[str, float]) -> None:
    """Refuse to go on from a NaN or an infinity, which no file could hold either."""
    broken = [f"{name} {value}" for name, value in values.items() if not np.isfinite(value)]
    if broken:
        raise NonFiniteLoss(
            f"step {step}: {', '.join(broken[:3])}; first not finite: "
            f"{first_not_finite(model)}. Lower the learning rate or clip the gradient "
            "(optimizer: clip_grad_norm)."
        )
