"""Does every enabled setting do something? Shown by experiment before a run, never believed.

A network is trained for a few updates as configured, and again with one setting switched off. Where
schedule, text, losses and weights agree to the last bit, the setting is dead. A parameter is dead
when all its gradients were 0: a matrix that begins at 0 gets another once what stands behind it has
moved, while of two factors that are both 0 neither ever does. A setting that brings parameters of
its own is judged by these.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from workbench.diagnostics.checks import Check
from workbench.model import ModelConfig, Network
from workbench.text import Data
from workbench.training.begin import batches
from workbench.training.config import TrainConfig
from workbench.training.objectives import CrossEntropy
from workbench.training.optimizers import optimizers
from workbench.training.resume import Parts
from workbench.training.schedule import GROUPS, Moment, active, group_settings, schedule
from workbench.training.step import Learner, gradient, update

UPDATES = 4  # a zero head, a zero projection behind it and what feeds that take three
RECORD = ("validate_every", "validation_tokens", "checkpoints", "measure_every", "resume_seconds")
PLACE = ("device", "dtype", "tokens_per_pass", "compile", "processes", "newton_schulz_dtype")
UNJUDGED = {  # why a setting may show nothing here
    **dict.fromkeys(RECORD, "changes the record alone"),
    **dict.fromkeys(PLACE, "judged in float32 on the CPU"),
    **{"seconds": "acts by the clock", "init": "acts on fresh weights alone"},
    "seed": "draws weights and orders records; a packed text has no order",
    "average": "stands beside the weights; phases say when it takes them",
}
IDLE = (  # may be right all the same
    *("clip_grad_norm", "micro_batches", "momentum_warmup_steps", "warmdown_share"),
    *("class_weights", "head_width"),
)
MOMENTS = 2000  # of a schedule that are looked at
REMEDIES = {"error": "Leave it out, or find out why nothing reads it.", "warning": "Is it meant?"}
Make = Callable[[ModelConfig], Network]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a run."""

    model: ModelConfig
    train: TrainConfig


def alive(recipe: Recipe, data: Data, *, make: Make) -> list[Check]:
    """Judge every parameter, and every setting that is neither off nor at its default.

    Parameters
    ----------
    recipe : Recipe
    data : Data
        What is to be learned; updates here learn one row of it.
    make : callable
        Makes a new network of a configuration, with the same weights at every call. No other is
        touched.

    Returns
    -------
    list of Check
        Parameters that are dead or do not move, then every setting. What acts late in a run is
        judged by its schedule; what shows in none of these is unjudged, never ok.

    Raises
    ------
    NonFiniteLoss
        If these few updates already meet a NaN or an infinity.
    """
    base = list(_trace(recipe, data, make))
    found: list[tuple[str, Any, str, str]] = []
    for name, has_learned, has_moved, is_zero, _ in base[-1]:
        if not has_learned:
            more = ": it is 0, and so is what it is multiplied by" if is_zero else ""
            found.append((name, None, "error", f"no gradient but 0 in {UPDATES} updates{more}"))
        elif not has_moved:
            found.append((name, None, "warning", "has gradients and does not move"))
    for path, value, others in _enabled(recipe):
        level, message = "unjudged", "no other value fits"
        for other in others:
            with suppress(ValueError):  # another setting, the text or given weights exclude it
                twin = _trace(_with(recipe, path, other), data, make)
                if any(own != theirs for own, theirs in zip(base, twin, strict=False)):
                    level, message = "ok", "changes the forward pass, the text or the update"
                    break
                level = "warning" if path[-1] in IDLE else "error"
                message = f"does not fire: no change in {UPDATES} updates, nor in the schedule"
                if reasons := [UNJUDGED[name] for name in path if name in UNJUDGED]:
                    level, message = "unjudged", reasons[0]
                    break
        found.append((".".join(path), value, level, message))
    return [
        Check(
            name=name,
            value=float(level != "ok"),
            threshold=0.0,
            message=message if value is None else f"{value!r} {message}",
            remedy=REMEDIES.get(level, ""),
            severity=level,
        )
        for name, value, level, message in found
    ]


def _trace(recipe: Recipe, data: Data, make: Make) -> Iterator[Any]:
    """Yield all that a run shows: schedule, text, shapes, losses, and what became of weights."""
    config = recipe.train
    factors = [schedule(**settings) for settings in group_settings(config).values()]
    for step in sorted({round(i * config.steps / MOMENTS) for i in range(MOMENTS)}):
        moment = Moment(step=step, steps=config.steps)
        yield active(config.switches, moment), [factor(moment) for factor in factors]
        yield config.optimizer.momentum_at(step)
    yield [part.tobytes() for part in batches(data, config)(0)]
    model = make(recipe.model)
    goal = CrossEntropy(config.objective, d_model=recipe.model.d_model, tokenizer=data.tokenizer)
    chosen = optimizers(model, config.optimizer, extra=goal.named_parameters())
    parts, learner = Parts(model=model, optimizers=chosen, objective=goal), Learner(model, goal)
    trained = {p: n for p, n in parts.names.items() if p.requires_grad and p.numel()}
    yield {name: parameter.shape for parameter, name in trained.items()}
    start = {parameter: parameter.detach().clone() for parameter in trained}
    row = {"tokens_per_step": config.sequence_length, "micro_batches": 1}
    place = {"device": "cpu", "dtype": "float32", "measure_every": 0}
    begun = replace(config, **row, **place)  # type: ignore[arg-type]
    # The end of a run takes all passes, its beginning may not: what only they reach is not dead.
    here = replace(begun, passes=None, switches=())
    batch_of, scales = batches(data, here), dict.fromkeys(GROUPS, 1.0)
    for step in range(UPDATES):
        yield float(update(learner, batch_of(step), parts, here, step=step, scales=scales)["loss"])
    yield float(gradient(learner, batch_of(0), begun)["loss"])
    ended, memory = [], {p: kept for each in chosen for p, kept in each.state.items()}
    for p, name in trained.items():
        has_learned = any(bool(t.any()) for n, t in memory.get(p, {}).items() if n != "step")
        has_moved, is_zero = not torch.equal(p, start[p]), not start[p].any()
        ended.append((name, has_learned, has_moved, is_zero, p.detach().numpy().tobytes()))
    yield ended


def _enabled(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any, list[Any]]]:
    """Yield the path of what is neither off nor at its default, its value, and other values."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        here = (*path, field.name)
        if is_dataclass(value):
            yield from _enabled(value, here)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        off = None if type(None) in get_args(hint) else False if hint is bool else default
        is_off = value == off or (not value and not isinstance(value, float))
        if is_off or (is_dataclass(value) and off is not None):
            continue
        others = [off, default, *(get_args(hint) if get_origin(hint) is Literal else ())]
        if type(value) in (int, float):
            others += [2 * value, type(value)(value / 2)]
        yield here, value, [other for other in others if other not in (value, MISSING)]


def _with(config: Any, path: tuple[str, ...], value: Any) -> Any:
    """Return the configuration with another value at a path."""
    name, *rest = path
    inner = _with(getattr(config, name), tuple(rest), value) if rest else value
    return replace(config, **{name: inner})
