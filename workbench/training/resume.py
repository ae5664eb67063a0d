"""What a training changes, in one file: a run that was killed continues as if it had not been.

Weights, optimizers, an average, the random state of torch and where the run stands are written
together and replaced by rename, so that the newest file is always whole. What is computed from
these alone, as the order of the text and every rate, is not stored.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from workbench.folder import InputError, RunFolder, read_jsonl, replacing
from workbench.model import Network, load_state, read_state
from workbench.training.averages import Average


@dataclass(kw_only=True)
class Standing:
    """Where a run stands between two updates."""

    step: int = 0  # updates done
    tokens: int = 0  # targets learned from
    seconds: float = 0.0  # training time
    position: int = 0  # in the training split, in tokens or records


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is trained, and what the training remembers beside it."""

    model: Network
    optimizers: Sequence[torch.optim.Optimizer]
    objective: nn.Module | None = None  # where it has weights of its own
    average: Average | None = None

    @cached_property
    def names(self) -> dict[nn.Parameter, str]:
        """Name every parameter that is trained, the model's as the model does."""
        modules = [self.model, *([self.objective] if self.objective is not None else [])]
        return {each: name for module in modules for name, each in module.named_parameters()}


def save_standing(path: Path, standing: Standing, parts: Parts, *, weights: bool = True) -> None:
    """Write where a run stands, with all that changes, to one file; the weights where asked."""
    tensors = {f"optimizer.{name}": each for name, each in _memory(parts.optimizers).items()}
    if weights:
        tensors |= {f"model.{name}": each for name, each in parts.model.state_dict().items()}
    tensors |= {f"random.{name}": tensor for name, tensor in _random().items()}
    if parts.objective is not None:
        tensors |= {f"objective.{n}": each for n, each in parts.objective.state_dict().items()}
    if parts.average is not None:
        tensors |= {f"average.{name}": each for name, each in parts.average.tensors().items()}
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as scratch:
        save_file(whole, scratch, metadata={"standing": json.dumps(asdict(standing))})


def load_standing(path: Path, parts: Parts) -> Standing:
    """Put a file of `save_standing` into what is trained, and return where it stands.

    Raises
    ------
    InputError
        If the file is damaged, or of a run with another model or other optimizers.
    """
    tensors = read_state(path)
    with safe_open(path, "pt") as file:
        standing = json.loads((file.metadata() or {}).get("standing", "null"))
    found = {kind: _below(kind, tensors) for kind in ("model", "optimizer", "objective", "average")}
    if standing is None:
        wanted, remedy = "where a run stands", "Choose resume-N.safetensors of the run."
        raise InputError(path, expected=wanted, found="weights alone", remedy=remedy)
    load_state(parts.model, found["model"])
    for index, optimizer in enumerate(parts.optimizers):
        _remember(optimizer, _below(str(index), found["optimizer"]), path)
    if parts.objective is not None:
        own = parts.objective.state_dict()
        if own.keys() != found["objective"].keys():
            wanted, names = "the weights of this objective", ", ".join(found["objective"]) or "none"
            remedy = "Branch with the parent's objective."
            raise InputError(path, expected=wanted, found=names, remedy=remedy)
        parts.objective.load_state_dict(found["objective"])
    if parts.average is not None:
        parts.average.load(found["average"])
    for name, state in _below("random", tensors).items():
        if name == "cpu":
            torch.set_rng_state(state)
        elif torch.cuda.is_available():
            torch.cuda.set_rng_state(state)
    return Standing(**standing)


def branch(run: RunFolder, parent: RunFolder, step: int) -> None:
    """Let a new run begin where another stood after `step` updates, its metrics so far included.

    Raises
    ------
    InputError
        If the parent kept no such step, or its weights alone.
    """
    state = kept_state(parent, step)
    weights = read_state(parent.checkpoints / state.name)
    with safe_open(state, "pt") as file:
        metadata = file.metadata()
    tensors = read_state(state) | {f"model.{name}": each for name, each in weights.items()}
    shutil.copyfile(parent.metrics, run.metrics)
    with replacing(run.path / f"resume-{step:06d}.safetensors") as scratch:
        save_file(tensors, scratch, metadata=metadata)


def kept_state(run: RunFolder, step: int) -> Path:
    """Find what a branch from `step` needs beside the weights; refuse where there is none."""
    kept = {int(path.stem.split("-")[1]): path for path in run.states.glob("step-*.safetensors")}
    if step not in kept:
        steps = ", ".join(map(str, sorted(kept))) or "none"
        remedy = "Choose one of them, or begin from weights alone: train -p initial_state FILE."
        where = f"step {step} of {run.name}"
        raise InputError(where, expected="a kept step", found=f"kept: {steps}", remedy=remedy)
    return kept[step]


def newest_standing(run: RunFolder) -> Path | None:
    """Return the newest file that `run` can continue from, or None."""
    return max(run.path.glob("resume-*.safetensors"), default=None)


def forget_after(run: RunFolder, step: int) -> list[dict[str, Any]]:
    """Cut metrics and checkpoints of later steps, which will be made again; return the lines."""
    lines = [line for line in read_jsonl(run.metrics) if line["step"] <= step]
    with replacing(run.metrics) as scratch:
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        scratch.write_text(text, encoding="utf-8")
    for path in (*run.checkpoints.glob("step-*"), *run.states.glob("step-*")):
        if int(path.stem.split("-")[1]) > step:
            path.unlink()
    return lines


def _memory(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Name what optimizers remember: which of them, which parameter, what."""
    return {
        f"{index}.{parameter}.{name}": value
        for index, optimizer in enumerate(optimizers)
        for parameter, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def _remember(optimizer: torch.optim.Optimizer, named: Mapping[str, Tensor], path: Path) -> None:
    """Give an optimizer back what it remembered."""
    memory: dict[int, dict[str, Tensor]] = {}
    for name, tensor in named.items():
        parameter, what = name.split(".", 1)
        memory.setdefault(int(parameter), {})[what] = tensor
    own = [each for group in optimizer.param_groups for each in group["params"]]
    fits = all(
        index < len(own) and (not tensor.ndim or tensor.shape == own[index].shape)
        for index, values in memory.items()
        for tensor in values.values()
    )
    if not fits:
        wanted, found = "the memory of these optimizers", "that of others"
        raise InputError(
            path, expected=wanted, found=found, remedy="Train with the run's settings."
        )
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": memory, "param_groups": groups})


def _random() -> dict[str, Tensor]:
    """Return the states that torch draws from."""
    cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def _below(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose name begins with `kind`, without it."""
    return {n.removeprefix(f"{kind}."): t for n, t in tensors.items() if n.startswith(f"{kind}.")}
