"""Watch anybody's training loop: hooks on a model and its optimizers write a run folder."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model as save_weights
from torch import Tensor, nn
from torch.optim import Optimizer

from workbench.folder import InputError, append_jsonl, create_run, environment, replacing
from workbench.model import Network, save_model
from workbench.text import Data, open_data
from workbench.training.measure import Updates, first_not_finite, learned_scalars

KEPT = 11  # checkpoints beside the last
CLIPPED = 0.999  # of the norm before: an optimizer that gets less gets a clipped gradient
UNOPENED = "the loop trained no Network of this library, or was watched without its corpus"


class Watched:
    """Write a run folder while the loop inside a ``with`` block trains.

    ::

        with workbench.watch(model, optimizer, "data/runs/mine") as watched:
            for step in range(1000):
                ...
                optimizer.step()
                watched.log(loss=loss)  # where `model(...)` does not return its loss

    The loop goes as it would: nothing is drawn at random, no weight or gradient is changed, and
    the hooks go with the block. Tokens are counted from what ``model(...)`` is called with in
    training, and a scalar that it returns (bare, in a tuple, or as ``.loss``) is the loss,
    averaged over the passes of a step. Of processes that train together, one watches.

    Each line of ``metrics.jsonl`` is open until the next step begins; what is logged between a
    training pass and its step, as a norm is where it is clipped, waits for the line of that step.
    On the first and every `every`-th step a line also has the small parameters, ``update_ratio``,
    the norm of an update over that of what it changed, and ``zero_update_share``, the entries that
    it left as they were (in bfloat16: those whose update was rounded away). Both are of rows evenly
    spaced in each matrix. Where ``step`` is given a closure, the gradients are its last.

    Parameters
    ----------
    model : nn.Module
        What the loop calls: where it is compiled, the compiled one.
    optimizer : Optimizer or sequence of Optimizer
        Several in the order in which they step.
    folder : str or Path
        Name of a run, or path of its folder.
    corpus, tokenizer : optional
        As `text.open_data` takes them, or opened data. A `Network` then opens in every probe.
    every : int
        Steps between measurements of updates and of small parameters.
    keep_every : int
        Steps between checkpoints at first; thinned so that 12 stay of a long run.
    replace : bool
        Remove a run of that name first.

    Raises
    ------
    InputError
        If the name is taken or not valid, the corpus cannot be opened, or an optimizer has no
        parameter of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer],
        folder: str | Path,
        *,
        corpus: Data | str | None = None,
        tokenizer: str | Path = "",
        every: int = 10,
        keep_every: int = 25,
        replace: bool = False,
    ) -> None:
        self.optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
        for each in self.optimizers:
            given = (parameter for group in each.param_groups for parameter in group["params"])
            if set(model.parameters()).isdisjoint(given):
                wanted, found = "one of this model", "that none of its parameters are the model's"
                remedy = "Make it of model.parameters(), once the model is copied and wrapped."
                raise InputError("optimizer", expected=wanted, found=found, remedy=remedy)
        data = open_data(corpus, tokenizer=tokenizer) if isinstance(corpus, str) else corpus
        path = Path(folder)
        root = path.parent if path.parent.name else None
        self.run = create_run(path.name, replace=replace, root=root)
        self.every, self.keep_every = every, keep_every
        self.called, self.model = model, getattr(model, "_orig_mod", model)  # compiled or not
        self.opens = self.model if isinstance(self.model, Network) and data is not None else None
        self.groups = [group for each in self.optimizers for group in each.param_groups]
        self.step = self.tokens = self.context = 0
        self.losses: list[Tensor] = []  # of the passes of this step
        self.before: Updates | None = None  # of the step under way, if it is measured
        self.line: dict[str, Any] = {}
        self.passed, self.waiting = False, dict[str, Any]()  # since the latest step
        if data is not None:
            data.tokenizer.save(self.run.path / "tokenizer")
            self.run.update(data=data.identity())

    def __enter__(self) -> "Watched":
        size = sum(parameter.numel() for parameter in self.model.parameters())
        rates = [float(group["lr"]) for group in self.groups]
        self.run.update(status="running", origin="watched", environment=environment())
        self.run.update(parameters=size, learning_rates=rates)
        self._keep()
        self.hooks = [
            self.called.register_forward_hook(self._passed, with_kwargs=True),
            self.optimizers[0].register_step_pre_hook(self._begins),
            self.optimizers[-1].register_step_post_hook(self._ends),
        ]
        self.started = self.latest = time.perf_counter()
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        for hook in self.hooks:
            hook.remove()
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        try:
            self._write()
            self._keep(last=True)
            if self.opens is not None and (error is None or stopped):
                save_model(self.opens, self.run.path)
        except BaseException as raised:
            error = error or raised
            raise
        finally:
            status = "finished" if error is None else "stopped" if stopped else "failed"
            training = {"steps": self.step, "sequence_length": self.context}
            training["tokens_per_step"] = self.tokens // max(1, self.step)
            reason = f"{type(error).__name__}: {error}" if error else "" if self.opens else UNOPENED
            self.run.update(status=status, reason=reason, steps_done=self.step, training=training)

    def log(self, **values: Any) -> None:
        """Add to the line of a step, or replace what is there.

        The step is the latest, or the next where ``model(...)`` has been called in training since:
        both right after ``clip_grad_norm_`` and right after ``optimizer.step()`` are good places.

        Parameters
        ----------
        **values
            ``loss`` [nat/token], ``validation_bits_per_byte``, or whatever is to be followed.
            ``grad_norm`` is that before clipping: the line then says whether it was ``clipped``.
            What JSON cannot hold is written as text.
        """
        (self.waiting if self.passed or "step" not in self.line else self.line).update(values)

    def _passed(self, _: nn.Module, args: tuple[Any, ...], more: dict[str, Any], out: Any) -> None:
        """Count the tokens of a training pass, and keep the loss that it returns."""
        if self.model.training and torch.is_grad_enabled():
            self.passed = True
            given = [e for e in (*args, *more.values()) if isinstance(e, Tensor) and e.ndim]
            for ids in given[:1]:
                self.tokens, self.context = self.tokens + ids.numel(), ids.shape[-1]
            parts = out if isinstance(out, tuple) else (getattr(out, "loss", out),)
            self.losses += [p.detach() for p in parts if isinstance(p, Tensor) and not p.ndim][:1]

    def _begins(self, _: Optimizer, args: tuple[Any, ...], more: dict[str, Any]) -> None:
        """Measure what the optimizers are about to use, unless a closure is yet to make it."""
        self._write()
        closure = any(map(callable, (*args, *more.values())))
        self.line = {} if closure else self._gradients()
        if not self.step or (self.step + 1) % self.every == 0:
            named = self.model.named_parameters()
            drawn = ((n, p) for n, p in named if closure and p.requires_grad or p.grad is not None)
            self.before = Updates(drawn)

    def _gradients(self) -> dict[str, Any]:
        """Return the norms of the gradients there are."""
        slopes = [[p.grad for p in g["params"] if p.grad is not None] for g in self.groups]
        place = next(self.model.parameters()).device  # a group without gradients has none
        norms = torch.stack([torch.nn.utils.get_total_norm(each).to(place) for each in slopes])
        return {"grad_norm_applied": norms.float().norm(), "grad_norm_by_group": norms}

    def _ends(self, *_: Any) -> None:
        """Fill the line of a step with what can be measured right after it."""
        now, self.step = time.perf_counter(), self.step + 1
        ms = 1000 * (now - self.latest)
        self.line = self.line or self._gradients()  # a closure has made them meanwhile
        self.line |= {"step": self.step, "tokens": self.tokens}
        self.line |= {"seconds": round(now - self.started, 4), "ms": round(ms, 3)}
        self.line |= {"learning_rate": self.groups[0]["lr"]}
        if self.losses:
            self.line["loss"] = torch.stack(self.losses).float().mean()
        if self.before:
            self.line |= self.before.result() | {"scalars": learned_scalars(self.model)}
        self.line |= self.waiting
        self.losses, self.before, self.latest = [], None, now
        self.passed, self.waiting = False, {}
        if self.step % self.keep_every == 0:
            self._keep()

    def _write(self) -> None:
        """Append the line of the latest step."""
        line = {name: _plain(value) for name, value in self.line.items()}
        if "step" in line:  # else an optimizer raised
            applied, whole = line["grad_norm_applied"], line.get("grad_norm")
            if isinstance(applied, float) and isinstance(whole, int | float):
                line["clipped"] = applied < CLIPPED * whole
            if broken := [name for name, value in line.items() if value is None]:
                line |= {"not_finite": broken, "first_not_finite": first_not_finite(self.model)}
            append_jsonl(self.run.metrics, {"grad_norm": applied} | line)
        self.line = {}

    def _keep(self, *, last: bool = False) -> None:
        """Keep the weights of this step, and thin those kept before."""
        folder = self.run.checkpoints
        with replacing(folder / f"step-{self.step:06d}.safetensors") as scratch:
            save_weights(self.model, str(scratch))
        kept = {int(path.stem.split("-")[1]): path for path in folder.glob("step-*.safetensors")}
        if len(kept) > KEPT and not last:
            odd = sorted(step for step in kept if step % (2 * self.keep_every))
            kept[odd[0]].unlink()
            # The oldest go first; once every other is gone, the next are twice as far apart.
            self.keep_every *= 1 + (len(odd) == 1)


watch = Watched  # reads as a verb where it is called


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it: NaN, which it has not, as null, and the unknown as text."""
    try:
        text = json.dumps(value, default=lambda tensor: tensor.tolist())
    except (AttributeError, TypeError, ValueError, RuntimeError):  # no such method, key or storage
        text = json.dumps(str(value))
    return json.loads(text, parse_constant=lambda _: None)
