"""The learner compiled, and an account of what the compiler did: when, why and how long it took.

Shapes are static, so that every pass runs code made for it. All that a run will see are compiled by
passes before its first step whose gradients are thrown away; what is compiled later was not
foreseen, costs training time and is named with its step.
"""

import time
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch._dynamo.utils import CompilationMetrics, counters, get_compilation_metrics

from workbench.folder import RunFolder
from workbench.text import Data
from workbench.training.begin import batches
from workbench.training.config import TrainConfig
from workbench.training.step import gradient

BACKEND = "inductor"


class CompileAudit:
    """Compile a learner in place; names of its weights stay as they are.

    Parameters
    ----------
    learner : Module
        On its device. Code that this process compiled before is forgotten.
    run : RunFolder
        Its record keeps the account as ``compile``: ``backend, graphs``, ``graph_breaks``, how
        many for each cause, ``recompiles``, each with its ``step`` (0: before the first), ``cause``
        and ``seconds``, ``seconds`` of compiling in all, and ``none_after_warm_up``.
    """

    def __init__(self, learner: nn.Module, run: RunFolder) -> None:
        torch.compiler.reset()
        learner.compile(backend=BACKEND, dynamic=False)
        self.run, self.until, self.before = run, time.time_ns() // 1000, _counted()
        self.seconds, self.is_steady = 0.0, True
        self.recompiles: list[dict[str, Any]] = []

    def note(self, step: int) -> None:
        """Write down what was compiled since the last call, if anything was, as of a step."""
        new = [each for each in get_compilation_metrics() if (each.end_time_us or 0) > self.until]
        if not new:
            return
        self.until = max(each.end_time_us or 0 for each in new)
        self.seconds += sum(map(_seconds, new))
        self.is_steady &= step == 0
        for each in new:
            if cause := _brief(each.recompile_reason or ""):
                self.recompiles.append({"step": step, "cause": cause, "seconds": _seconds(each)})
        found = _counted() - self.before
        told = {"backend": BACKEND, "graphs": found.pop("graphs", 0), "graph_breaks": dict(found)}
        told |= {"recompiles": self.recompiles, "seconds": round(self.seconds, 3)}
        self.run.update(compile=told | {"none_after_warm_up": self.is_steady})


def warm_up(learner: nn.Module, data: Data, config: TrainConfig) -> None:
    """Take a pass of every shape that a run will see; leave no gradient and no random draw."""
    devices = [torch.cuda.current_device()] if "cuda" in config.device else []
    later = [each.settings for each in sorted(config.switches, key=lambda switch: switch.at)]
    # Beyond its limit the compiler would go on uncompiled.
    torch._dynamo.config.recompile_limit = max(8, 2 * len(config.switches) + 8)
    with torch.random.fork_rng(devices=devices):
        for settings in ({}, *later):
            config = replace(config, **settings)
            gradient(learner, batches(data, config)(0), config)
    learner.zero_grad(set_to_none=True)


def _counted() -> Counter[str]:
    """Count graphs, and graph breaks by cause, in this process so far."""
    breaks = {_brief(cause): count for cause, count in counters["graph_break"].items()}
    return Counter({"graphs": counters["stats"]["unique_graphs"], **breaks})


def _seconds(event: CompilationMetrics) -> float:
    """Return how long a compilation took [s]."""
    return round((event.duration_us or 0) / 1e6, 3)


def _brief(cause: str) -> str:
    """Return what happened and where on one line, without the compiler's advice."""
    lines = (" ".join(line.split()) for line in cause.splitlines())
    return "; ".join(line for line in lines if line and not line.startswith(("Hint", "For more")))
