"""The training loop: batches in, a run folder out."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.evaluation import score_batches
from workbench.folder import RunFolder, append_jsonl, environment, read_jsonl
from workbench.foreign import init_loss_verdict
from workbench.model import Network, save_model, save_state
from workbench.text import IGNORED, Data
from workbench.training.begin import batches, check_data
from workbench.training.config import TrainConfig
from workbench.training.guard import divergence_guard
from workbench.training.optimizers import optimizers
from workbench.training.schedule import multiplier

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]
Watch = Callable[[Mapping[str, Any]], None]
TRAINED = 0.85  # of the loss of a guess, ln(vocab_size): below, there is something to lose


class NonFiniteLoss(RuntimeError):
    """Training met a NaN or an infinity; says at which step and in which tensor."""


def next_token_loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the summed cross-entropy [nat] of targets (B, T), ignored positions left out."""
    logits = model(inputs).float()
    return F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def train(
    model: Network,
    data: Data,
    config: TrainConfig,
    run: RunFolder,
    *,
    watch: Watch | None = None,
    objective: Objective = next_token_loss,
) -> Network:
    """Train `model` in place and leave metrics, checkpoints and weights in `run`.

    Parameters
    ----------
    model : Network
        Fresh or loaded; moved to ``config.device``.
    data : Data
        Its training split is learned, the start of its validation split watched.
    config : TrainConfig
    run : RunFolder
        An open folder. Its status becomes running, then finished, stopped (interrupted by hand;
        weights so far are kept) or failed.
    watch : callable, optional
        Called with each line of ``metrics.jsonl``.
    objective : callable, optional
        Maps (model, inputs, targets) to a summed loss [nat].

    Raises
    ------
    NonFiniteLoss
        At the first step whose loss or gradient is not finite.
    Diverged
        Where the loss has risen well above that of the first steps.
    """
    run.update(status="running", training=asdict(config), environment=environment())
    try:
        watchers = [divergence_guard(), *([watch] if watch else [])]
        steps = _train(model.to(config.device), data, config, run, watchers, objective)
    except KeyboardInterrupt:
        save_model(model, run.path)
        done = len(read_jsonl(run.metrics))
        run.update(status="stopped", reason="interrupted", steps_done=done)
        raise
    except BaseException as error:
        run.update(status="failed", reason=f"{type(error).__name__}: {error}")
        raise
    save_model(model, run.path)
    run.update(status="finished", steps_done=steps)
    return model.eval()


def _train(
    model: Network,
    data: Data,
    config: TrainConfig,
    run: RunFolder,
    watchers: list[Watch],
    objective: Objective,
) -> int:
    """Take the steps and return how many they were."""
    batch_of = batches(data, config)
    optimizer = optimizers(model, config.optimizer)
    elapsed, tokens, kept = 0.0, 0, 0
    if config.checkpoints:
        _keep(model, run, 0)
    for step in range(config.steps):
        started = time.perf_counter()
        scale = _scale(config, step, elapsed)
        measured = _step(model, batch_of(step), optimizer, config, objective, step, scale)
        spent = time.perf_counter() - started
        elapsed += spent
        tokens += measured.pop("counted")
        progress = max((step + 1) / config.steps, elapsed / (config.seconds or float("inf")))
        line = {
            "step": step + 1,
            "tokens": tokens,
            "seconds": round(elapsed, 4),
            "ms": round(1000 * spent, 3),
            **measured,
            "scalars": learned_scalars(model),
        }
        _check_finite(model, step, line["scalars"])
        due = config.validate_every and (step + 1) % config.validate_every == 0
        if due or progress >= 1:
            score, _ = _validate(model, data, config.sequence_length, config.validation_tokens)
            _check_finite(model, step, {"validation": score})
            line["validation_bits_per_byte"] = score
        append_jsonl(run.metrics, line)
        for each in watchers:
            each(line)
        reached = int(min(progress, 1.0) * config.checkpoints + 1e-9)  # 29 / 49 * 49 < 29
        if reached > kept:
            kept = reached
            _keep(model, run, step + 1)
        if progress >= 1:
            break
    return step + 1


def _scale(config: TrainConfig, step: int, elapsed: float) -> float:
    """Return the share of every full learning rate that the update after `step` updates takes."""
    return multiplier(
        step,
        steps=config.steps,
        warmdown_steps=config.warmdown_steps,
        warmup_steps=config.warmup_steps,
        seconds=config.seconds,
        elapsed=elapsed,
    )


def _step(
    model: Network,
    batch: tuple[np.ndarray, np.ndarray],
    optimizer: list[torch.optim.Optimizer],
    config: TrainConfig,
    objective: Objective,
    step: int,
    scale: float,
) -> dict[str, Any]:
    """Accumulate one step's gradient and apply it; return what was measured."""
    model.train()
    inputs, targets = (torch.from_numpy(part).to(config.device) for part in batch)
    counted = int((targets != IGNORED).sum())
    rows = max(1, config.tokens_per_pass // inputs.shape[1])
    total = torch.zeros((), device=config.device)
    use_autocast = config.dtype == "bfloat16"
    for some, wanted in zip(inputs.split(rows), targets.split(rows), strict=True):
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=use_autocast):
            loss = objective(model, some, wanted) / counted
        loss.backward()
        total += loss.detach()
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    value, grad_norm = float(total), float(norm)
    _check_finite(model, step, {"loss": value, "gradient norm": grad_norm})
    if config.optimizer.clip_grad_norm:
        torch.nn.utils.clip_grads_with_norm_(parameters, config.optimizer.clip_grad_norm, norm)
    momentum = config.optimizer.momentum_at(step)
    for each in optimizer:
        for group in each.param_groups:
            group["lr"] = group["base_lr"] * config.learning_rate_factor * scale
            if "momentum" in group:
                group["momentum"] = momentum
        each.step()
        each.zero_grad(set_to_none=True)
    return {
        "counted": counted,
        "loss": value,
        "learning_rate": scale * config.learning_rate_factor * config.optimizer.matrix_lr,
        "learning_rate_multiplier": scale,
        "momentum": momentum,
        "grad_norm": grad_norm,
    }


def _check_finite(model: nn.Module, step: int, values: Mapping[str, float]) -> None:
    """Refuse to go on from a NaN or an infinity, which no file could hold either."""
    broken = [f"{name} {value}" for name, value in values.items() if not np.isfinite(value)]
    if broken:
        raise NonFiniteLoss(
            f"step {step + 1}: {', '.join(broken[:3])}; first not finite: "
            f"{first_not_finite(model)}. Lower the learning rate or clip the gradient "
            "(optimizer: clip_grad_norm)."
        )


def first_not_finite(model: nn.Module) -> str:
    """Name the first parameter, else gradient, that holds a NaN or an infinity."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"weight {name}"
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"gradient of {name}"
    return "the loss itself"


def learned_scalars(model: nn.Module) -> dict[str, float]:
    """Return every learned scalar, and the mean of every learned vector of scales.

    Names are the parameter's, with an index for scalars (``blocks.0.attn.q_gain.2``) and
    ``.mean`` for per-channel vectors (``blocks.0.attn_scale.mean``).
    """
    named = {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.ndim < 2 or "resid_mix" in name or "skip_weights" in name
    }
    names, values = [], []
    for name, tensor in named.items():
        if name.endswith(("q_gain", "alpha")):
            names += [f"{name}.{index}" for index in range(tensor.numel())]
            values.append(tensor.float().reshape(-1))
        else:
            rows = tensor.float().reshape(-1, *tensor.shape[-1:] or (1,)).mean(dim=1)
            names += [
                f"{name}.{i}.mean" if len(rows) > 1 else f"{name}.mean" for i in range(len(rows))
            ]
            values.append(rows)
    together = torch.cat(values or [torch.empty(0)]).tolist()  # one transfer from the device
    return {name: round(value, 6) for name, value in zip(names, together, strict=True)}


def _validate(
    model: nn.Module, data: Data, sequence_length: int, limit: int
) -> tuple[float, float]:
    """Return bits per byte and nats per token on the start of the validation split."""
    model.eval()
    nat, size, count = 0.0, 0, 0
    for part in score_batches(
        model,
        data.validation,
        sequence_length=sequence_length,
        limit=limit,
    ):
        nat += float(part["nll"].sum())
        size += int(data.tokenizer.byte_counts(part["id"], part["previous"]).sum())
        count += len(part["id"])
    return nat / float(np.log(2)) / size, nat / count


def judge_start(
    model: Network, data: Data, *, sequence_length: int, tokens: int = TrainConfig.validation_tokens
) -> dict[str, Any]:
    """Say what a network knows before its first step: fresh weights nothing, loaded ones much.

    Parameters
    ----------
    sequence_length, tokens : int
        Context, and how much of the validation split to score.

    Returns
    -------
    dict
        ``bits_per_byte``, which compares across tokenizers, and ``loss`` [nat/token], None where
        not finite; ``trained``, whether that is well below the loss of a guess; and what
        `init_loss_verdict` makes of it: ``passed, absolute, diagnosis``.

    Raises
    ------
    InputError
        If the data do not fit the model.
    """
    check_data(model, data, sequence_length=sequence_length)
    measured = _validate(model, data, sequence_length, tokens)
    vocab_size = model.config.vocab_size
    trained = measured[1] < TRAINED * float(np.log(vocab_size))
    verdict = init_loss_verdict(measured[1], vocab_size=vocab_size)
    told = [each if np.isfinite(each) else None for each in measured]
    return {"bits_per_byte": told[0], "loss": told[1], "trained": trained, **verdict}


def _keep(model: Network, run: RunFolder, step: int) -> None:
    """Keep the weights after `step` updates."""
    save_state(model, run.checkpoints / f"step-{step:06d}.safetensors")
