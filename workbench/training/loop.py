"""The training loop: batches in, a run folder out."""

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from workbench.evaluation import score_batches
from workbench.folder import InputError, RunFolder, environment, read_jsonl
from workbench.foreign import init_loss_verdict
from workbench.model import Network, load_state, read_state, save_model, save_state
from workbench.text import Data
from workbench.training.averages import Average
from workbench.training.begin import advance, batches, check_data
from workbench.training.config import TrainConfig
from workbench.training.distributed import agreed, launch, place
from workbench.training.guard import divergence_guard
from workbench.training.ledger import Ledger, Pace, Watch
from workbench.training.objectives import CrossEntropy, Objective
from workbench.training.optimizers import optimizers
from workbench.training.resume import (
    Parts,
    Standing,
    forget_after,
    load_standing,
    newest_standing,
    save_standing,
)
from workbench.training.schedule import Moment, active, group_settings, schedule
from workbench.training.step import Batch, Learner, update

TRAINED = 0.85  # of the loss of a guess, ln(vocab_size): below, there is something to lose


class Stopped(Exception):
    """The run was asked to stop, and did so between two steps."""


def train(
    model: Network,
    data: Data,
    config: TrainConfig,
    run: RunFolder,
    *,
    watch: Watch | None = None,
    objective: Objective | None = None,
) -> Network:
    """Train `model` in place and leave metrics, checkpoints and weights in `run`.

    A folder that holds where a killed or stopped run stood is continued from there: on the CPU,
    with a schedule by steps, as if it had not been interrupted. What followed is cut and made
    again, and `watch` is shown the lines before it once more.

    With ``config.processes`` above 1 the steps are taken by as many new processes, which open the
    data of the run again, and `watch` is called here; see `training.distributed`. With
    ``config.compile`` the record says what was compiled; see `training.compiled`.

    Parameters
    ----------
    model : Network
        Fresh or loaded; moved to ``config.device``.
    data : Data
        Its training split is learned, the start of its validation split watched.
    config : TrainConfig
    run : RunFolder
        An open folder. Its status becomes running, then finished, stopped (by hand or by
        ``run.request_stop()``; weights so far are kept) or failed.
    watch : callable, optional
        Called with each line of ``metrics.jsonl``.
    objective : callable, optional
        Maps (model, inputs, targets) to a summed loss [nat]; by default what ``config.objective``
        describes. See `training.objectives`.

    Raises
    ------
    InputError
        If the run has ended, since training would write over it, or if several processes are to
        share an `objective`, which cannot be sent to them.
    WorkerFailed
        If one of several processes was lost or failed; the run can be continued, by any number.
    NonFiniteLoss
        At the first step whose loss or gradient is not finite.
    Diverged
        Where the loss has risen well above that of the first steps.
    """
    if newest_standing(run) is None and read_jsonl(run.metrics):
        wanted, remedy = "a new run, or one that was cut short", "Begin another, or branch from it."
        raise InputError(run.path, expected=wanted, found="one that has ended", remedy=remedy)
    own = None
    if objective is not None:
        own = getattr(objective, "__qualname__", type(objective).__name__)
    run.update(status="running", reason=None, objective=own)
    here = environment() | {"threads": torch.get_num_threads()}
    run.update(training=asdict(config), environment=here)
    watchers = [divergence_guard(), *([watch] if watch else [])]
    standing = Standing()
    try:
        take = _train_together if config.processes > place()[1] else _train
        take(model, data, config, run, watchers, objective, standing)
    except (KeyboardInterrupt, Stopped) as error:
        save_model(model, run.path)
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else "asked to stop"
        if len(model.order) < len(model.visits):
            reason += " before all passes were taken: the weights will run some that they never had"
        reason = str(error) or reason  # of several processes, the first has said it
        run.update(status="stopped", reason=reason, steps_done=standing.step)
        if isinstance(error, KeyboardInterrupt):
            raise
        return model.eval()
    except BaseException as error:
        run.update(status="failed", reason=f"{type(error).__name__}: {error}")
        raise
    finally:
        model.take_passes(model.config.passes)
    save_model(model, run.path)
    run.update(status="finished", reason=None, steps_done=standing.step)
    for path in run.path.glob("resume-*.safetensors"):
        path.unlink()
    return model.eval()


def _train(
    model: Network,
    data: Data,
    config: TrainConfig,
    run: RunFolder,
    watchers: list[Watch],
    objective: Objective | None,
    standing: Standing,
) -> None:
    """Take the steps that are left; `standing` says how many are done."""
    learner, parts, average = _assembled(model, data, config, objective)
    _continue(run, standing, parts, watchers)
    learner, audit = _prepared(learner, data, config, run)
    factors = {kind: schedule(**each) for kind, each in group_settings(config).items()}
    ledger, feed, pace = Ledger(run, model, watchers), Feed(data, config), Pace(config.device)
    if config.checkpoints and not standing.step:
        _keep(parts, run, standing)
    kept, saved = _due(config, standing), time.perf_counter()
    while (moment := _moment(config, standing)).progress < 1:
        started = time.perf_counter()
        scales = {kind: factor(moment) for kind, factor in factors.items()}
        batch, now = feed.next(moment, standing)
        line = update(learner, batch, parts, now, step=standing.step, scales=scales)
        average.update(model, step=standing.step + 1, multiplier=scales["matrix"])
        pace.wait(through=ledger.is_due())
        spent = time.perf_counter() - started
        standing.step += 1
        if audit:
            audit.note(standing.step)
        standing.seconds += spent
        standing.tokens += line.pop("counted")
        standing.position += advance(data, now)
        line = _described(line, standing, spent, scales["matrix"], config)
        done = _moment(config, standing).progress
        if done >= 1 or (config.validate_every and standing.step % config.validate_every == 0):
            score, _ = _validate(model, data, config.sequence_length, config.validation_tokens)
            line["validation_bits_per_byte"] = score
        ledger.add(line)
        if (due := _due(config, standing)) > kept:
            kept = due
            _keep(parts, run, standing)
        standing.seconds, asked = agreed(standing.seconds, run.asked_to_stop())
        if asked or time.perf_counter() - saved >= config.resume_seconds:
            ledger.flush()
            _save(parts, run, standing)
            saved = time.perf_counter()
        if asked and _moment(config, standing).progress < 1:
            raise Stopped
    ledger.flush()
    if average.weights():  # the last step's own stay among the checkpoints
        load_state(model, model.state_dict() | average.weights())


def _prepared(
    learner: nn.Module, data: Data, config: TrainConfig, run: RunFolder
) -> tuple[nn.Module, Any]:
    """Compile the learner and share it with other processes, as far as asked for."""
    audit = None
    if config.compile:
        from workbench.training import compiled  # the compiler takes seconds to import

        audit = compiled.CompileAudit(learner, run)
    if place()[1] > 1:
        # As skips of one block are, or mixes of passes that are not taken yet.
        some_idle = config.passes or not all(each.numel() for each in learner.parameters())
        learner = DistributedDataParallel(learner, find_unused_parameters=bool(some_idle))
    if audit:
        compiled.warm_up(learner, data, config)
        audit.note(0)
    return learner, audit


def _train_together(
    model: Network,
    data: Data,
    config: TrainConfig,
    run: RunFolder,
    watchers: list[Watch],
    objective: Objective | None,
    standing: Standing,
) -> None:
    """Have the steps that are left taken by several processes, and take over their weights."""
    if objective is not None:
        expected, remedy = "what config.objective describes", "Train in one process."
        raise InputError("objective", expected=expected, found=str(objective), remedy=remedy)
    _, parts, _ = _assembled(model, data, replace(config, device="cpu"), None)
    _continue(run, standing, parts, watchers)
    weights = run.path / "model.safetensors"
    try:
        launch(run, config.processes, watchers)
    finally:
        record = run.record()
        standing.step = record.get("steps_done", standing.step)
        if weights.exists():
            load_state(model, read_state(weights))
    if record["status"] == "stopped":
        raise Stopped(record["reason"])


def _assembled(
    model: Network, data: Data, config: TrainConfig, objective: Objective | None
) -> tuple[nn.Module, Parts, Average]:
    """Put on its device what is trained, and what the training remembers."""
    goal = objective
    if goal is None:
        width = model.config.d_model
        goal = CrossEntropy(config.objective, d_model=width, tokenizer=data.tokenizer)
    learner = Learner(model, goal).to(config.device)
    own = goal if isinstance(goal, nn.Module) else None
    extra = own.named_parameters() if own else ()
    average = Average(model, config.average)
    chosen = optimizers(model, config.optimizer, extra=extra)
    return learner, Parts(model=model, optimizers=chosen, objective=own, average=average), average


def _continue(run: RunFolder, standing: Standing, parts: Parts, watchers: list[Watch]) -> None:
    """Go back to where the run stood last, or note where it begins."""
    if place()[1] == 1:  # of several, the process that launched them has
        run.withdraw_stop()
    newest = newest_standing(run)
    if newest is None:
        forget_after(run, 0)
        _save(parts, run, standing)
        return
    found = load_standing(newest, parts)
    for name, value in asdict(found).items():
        setattr(standing, name, value)
    for line in forget_after(run, standing.step):
        for watch in watchers:
            watch(line)


def _save(parts: Parts, run: RunFolder, standing: Standing) -> None:
    """Write where the run stands, then remove where it stood."""
    path = run.path / f"resume-{standing.step:06d}.safetensors"
    save_standing(path, standing, parts)
    for older in run.path.glob("resume-*.safetensors"):
        if older != path:
            older.unlink()


def _moment(config: TrainConfig, standing: Standing) -> Moment:
    """Return where the run stands, as its schedules see it."""
    return Moment(
        step=standing.step, steps=config.steps, elapsed=standing.seconds, seconds=config.seconds
    )


class Feed:
    """The text of each step, cut as the switches of a run have it by then."""

    def __init__(self, data: Data, config: TrainConfig) -> None:
        self.data, self.config = data, config
        self.settings: dict[str, Any] | None = None

    def next(self, moment: Moment, standing: Standing) -> tuple[Batch, TrainConfig]:
        """Return the batch of a step, and the configuration with what was switched to."""
        settings = active(self.config.switches, moment)
        if settings != self.settings:
            self.settings, self.now = settings, replace(self.config, **settings)
            start = standing.position - standing.step * advance(self.data, self.now)
            self.batch_of = batches(self.data, self.now, start=start)
        return self.batch_of(standing.step), self.now


def _described(
    line: Mapping[str, Any], standing: Standing, spent: float, scale: float, config: TrainConfig
) -> dict[str, Any]:
    """Put what a step measured between where the run stands and its rates."""
    return {
        "step": standing.step,
        "tokens": standing.tokens,
        "seconds": round(standing.seconds, 4),
        "ms": round(1000 * spent, 3),
        **line,
        "learning_rate": scale * config.learning_rate_factor * config.optimizer.matrix_lr,
        "learning_rate_multiplier": scale,
    }


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


def _due(config: TrainConfig, standing: Standing) -> int:
    """Return how many checkpoints are due by now."""
    share = min(_moment(config, standing).progress, 1.0)
    return int(share * config.checkpoints + 1e-9)  # 29 / 49 * 49 < 29


def _keep(parts: Parts, run: RunFolder, standing: Standing) -> None:
    """Keep the weights of this step, and beside them what a branch needs to go on from it."""
    name = f"step-{standing.step:06d}.safetensors"
    save_state(parts.model, run.checkpoints / name)
    save_standing(run.states / name, standing, parts, weights=False)
