"""How much memory training will take, found by a rehearsal in which no tensor has any data."""

import math
import weakref
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from workbench.model import ModelConfig, Network
from workbench.text import Tokenizer
from workbench.training.averages import Average
from workbench.training.config import TrainConfig
from workbench.training.objectives import CrossEntropy, Objective
from workbench.training.optimizers import optimizers
from workbench.training.step import Learner

PEAKS = ("backward_peak", "update_peak")


class _Live(TorchDispatchMode):
    """Count the bytes of tensors that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.held = set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for storage in (e.untyped_storage() for e in tree_leaves(made) if isinstance(e, Tensor)):
            if id(storage) not in self.held:
                self._change(id(storage), storage.nbytes())
                weakref.finalize(storage, self._change, id(storage), -storage.nbytes())
        return made

    def _change(self, storage: int, size: int) -> None:
        """Note that a storage was made, or that it is gone."""
        self.held ^= {storage}
        self.now += size
        self.most = max(self.most, self.now)


def pass_shape(schedule: TrainConfig) -> tuple[int, int]:
    """Return the rows of one forward pass, and how many passes a step takes."""
    rows = max(1, schedule.tokens_per_step // schedule.sequence_length)
    together = min(rows, max(1, schedule.tokens_per_pass // schedule.sequence_length))
    return together, math.ceil(rows / together)


def _learner(
    config: ModelConfig, schedule: TrainConfig, tokenizer: Tokenizer, objective: Objective | None
) -> Learner:
    """Make what is trained, doing at once all that a schedule has it take on late."""
    with torch.device(schedule.device):
        goal = objective or CrossEntropy(
            schedule.objective, d_model=config.d_model, tokenizer=tokenizer
        )
        learner = Learner(Network(config), goal)
    if isinstance(goal, nn.Module):
        goal.to(schedule.device)
    late = [each.quantize_bits for each in schedule.switches if each.quantize_bits]
    bits = schedule.quantize_bits or max(late, default=None)
    learner.take(replace(schedule, passes=None, switches=(), quantize_bits=bits))
    return learner


def training_bytes(
    config: ModelConfig,
    schedule: TrainConfig,
    *,
    tokenizer: Tokenizer,
    objective: Objective | None = None,
) -> dict[str, int]:
    """Forecast the memory of training, with every temporary that torch itself allocates.

    The network, its optimizers and a step are run through torch with tensors that have a shape and
    a device but no data, so that a model which would not fit can be judged too. Not counted: the
    libraries, the text, scratch inside a kernel, what compilation saves, and what an allocator
    keeps back, which on a processor under glibc can be as much again (the environment variable
    ``MALLOC_MMAP_THRESHOLD_=131072`` makes it return what is freed).

    Parameters
    ----------
    config : ModelConfig
    schedule : TrainConfig
    tokenizer : Tokenizer
    objective : callable, optional
        See `train`.

    Returns
    -------
    dict of str to int
        In bytes: ``weights``, ``gradients``, ``optimizer``, ``average``, what a forward pass
        leaves for the backward one in the network (``activations``) and between the last hidden
        state and the loss (``logits``), and the most that is alive at once, in a step's passes
        (``backward_peak``) and in its update (``update_peak``).
    """
    rows, passes = pass_shape(schedule)
    shape = rows, schedule.sequence_length
    use_autocast, kind = schedule.dtype == "bfloat16", schedule.device.split(":")[0]
    found, at_head = {}, list[int]()

    def tap(site: str, tensor: Tensor) -> Tensor:
        if site == "final_norm":
            at_head.append(live.now)
        return tensor

    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake, _Live() as live:
        learner = _learner(config, schedule, tokenizer, objective)
        model, goal = learner.model, learner.objective
        own = [*goal.named_parameters()] if isinstance(goal, nn.Module) else []
        model.tap, found["weights"] = tap, live.now
        every = optimizers(model, schedule.optimizer, extra=own)
        for group in (group for each in every for group in each.param_groups):
            for parameter in group["params"]:  # an update of nothing makes the optimizers' state
                parameter.grad = torch.zeros_like(parameter)
        found["gradients"] = live.now - found["weights"]
        for each in every:
            each.step()
        found["optimizer"] = live.now - found["weights"] - found["gradients"]
        before, average = live.now, Average(model, schedule.average)
        found["average"] = live.now - before
        if passes == 1:  # else the gradients of an earlier pass are there
            for each in every:
                each.zero_grad()
        start = live.most = live.now
        with torch.autocast(kind, torch.bfloat16, enabled=use_autocast):
            ids = torch.zeros(shape, dtype=torch.long, device=schedule.device)
            made = learner(ids, ids)
        found |= {"activations": at_head[-1] - start, "logits": live.now - at_head[-1]}
        (made[0] if isinstance(made, tuple) else made).backward()
        del made, ids
        found["backward_peak"], live.most = live.most, live.now
        for each in every:
            each.step()
        average.update(model, step=schedule.steps, multiplier=0.0)
        found["update_peak"] = live.most
    return found
