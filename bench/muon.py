"""Our Muon beside torch.optim.Muon: processor time of a step, in alternation, on one thread.

::

    .venv/bin/python bench/muon.py

Random weights and gradients of the matrices inside blocks, no momentum before. That of torch
iterates in bfloat16 whatever is asked, which processors without matrix units for it do slowly; for
a fair comparison it is also run with that conversion replaced by a copy, so in float32 as ours is.
Ratios are torch / ours: above 1, ours is faster. The difference is the largest of any element of
any weight after one step from equal weights, as a share of the largest change.
"""

import json
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from record import write_result
from torch import nn

from workbench.model import new_network, preset
from workbench.training import Muon, OptimizerConfig, optimizers

# Steps by preset and precision of torch; at baseline a step of it in bfloat16 takes a minute.
CASES = {("demo", "float32"): 15, ("demo", "bfloat16"): 3, ("baseline", "float32"): 3}
TORCH: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float32": lambda: patch.object(torch.Tensor, "bfloat16", torch.Tensor.clone),
    "bfloat16": nullcontext,
}


def main() -> None:
    """Measure and write one result file."""
    torch.set_num_threads(1)
    result = {
        f"{name}, torch in {dtype}": measured(name, dtype, repeats=repeats)
        for (name, dtype), repeats in CASES.items()
    }
    print(json.dumps(result, indent=1))
    print("written:", write_result("muon", result))


def measured(name: str, dtype: str, *, repeats: int) -> dict[str, float]:
    """Compare both on the block matrices of one preset."""
    theirs, ours = matrices(name), matrices(name)
    before = [weight.detach().clone() for weight in ours]
    settings = {"lr": 0.04, "momentum": 0.95}
    torch_muon = torch.optim.Muon(theirs, weight_decay=0.0, **settings)
    our_muon = Muon(ours, dtype="float32", **settings)
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        with TORCH[dtype]():
            times[0].append(seconds(torch_muon.step))
        times[1].append(seconds(our_muon.step))
        if not repeat:
            apart = largest(theirs, ours) / largest(ours, before)
    first, second = (1000 * statistics.median(spent[1:]) for spent in times)  # the first warms up
    ratio = statistics.median(a / b for a, b in zip(times[0][1:], times[1][1:], strict=True))
    return {
        "matrices": len(ours),
        "torch_ms": round(first, 2),
        "ours_ms": round(second, 2),
        "ratio": round(ratio, 3),
        "largest_difference": apart,
    }


def matrices(name: str) -> list[nn.Parameter]:
    """Draw weights and gradients of the shapes that Muon trains in a preset."""
    muon, _ = optimizers(new_network(preset(name), seed=0), OptimizerConfig())
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for parameter in muon.param_groups[0]["params"]:
        weight = nn.Parameter(torch.randn(parameter.shape, generator=generator))
        weight.grad = torch.randn(parameter.shape, generator=generator)
        drawn.append(weight)
    return drawn


def largest(some: list[nn.Parameter], others: list[Any]) -> float:
    """Return the largest difference of any element."""
    pairs = zip(some, others, strict=True)
    return max(float((one - other).detach().abs().max()) for one, other in pairs)


def seconds(action: Callable[[], object]) -> float:
    """Return the processor time of one call; other work on the machine does not count."""
    started = time.process_time()
    action()
    return time.process_time() - started


if __name__ == "__main__":
    main()
