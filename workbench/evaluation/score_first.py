"""Test-time training that scores before it learns: the text being judged adapts the weights.

Two forms, legal by one rule: a target is scored once, by weights that have learned from earlier
targets only. ``ttt`` follows the text chunk by chunk with one copy of all weights, by gradient
descent with momentum. ``ttt:lora`` follows each document with low-rank corrections of its own.

What depends on what: the weights given are never written, for a copy adapts, and it is thrown away
at the end; an evaluation owes nothing to the one before it. ``ttt`` carries what it learned from a
document to all later ones, so documents are not independent and their order counts. ``ttt:lora``
starts each document anew and its rows begin no earlier than the document does, so that the losses
of a document depend on that document alone, whatever the order and the batches.

Letters: ``B`` rows of a batch, ``T`` positions, ``V`` vocabulary.
"""

import copy
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from workbench.text import IGNORED, Tokens, Windows, windows

Offsets = NDArray[np.int64]
MOMENTUM, CLIP = 0.9, 1.0  # of ttt; a gradient's norm is at most the second


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """How weights learn from what was scored; the settings that a protocol may name."""

    chunk: int  # tokens scored before they are learned from
    lr: float  # of ttt: of the first chunk, falling to 0 along a cosine over the text
    epochs: int  # passes over a chunk
    rows: int  # of ttt: rows an update; of ttt:lora: documents side by side
    stride: int | None = None  # new targets a row, at most the context; None: set by the chunk
    rank: int | None = None  # of each correction; None: all weights learn


# For small models; large ones on long texts take chunks of 32,768 tokens in ttt. Measured on one
# of 592,147 parameters after 160 steps (context 256; 26,321 tokens, 32 documents), in pairs over
# documents, and chosen on that same text: ttt -0.0038 +- 0.0011 bit/byte beside full (lr 0.002:
# -0.0027 +- 0.0007, 0.01: -0.0034 +- 0.0017, 0.02: +0.0015 +- 0.0026); ttt:lora -0.0887 +- 0.0105
# beside the same rows without learning, which score as sliding:64 (lr 0.003: -0.0385 +- 0.0074).
FORMS = {
    "ttt": Adaptation(chunk=2048, lr=0.005, epochs=3, rows=4, stride=2**20),
    "ttt:lora": Adaptation(chunk=64, lr=0.01, epochs=1, rows=8, rank=8),
}


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that a scorer did: it scored some targets, or its weights learned from them.

    A scorer yields its events as they happen: the order is what a certificate judges.
    """

    offsets: Offsets  # (target,) where they stand in the split
    log_p: Tensor | None = None  # (target, V) log-probabilities as scored [nat]; None: learned from
    window: Windows | None = None  # the rows they were scored in
    copies: Offsets | int = 0  # (target,) documents whose own weights it was; 0: shared


def adaptation_of(protocol: str) -> Adaptation | None:
    """Read ``ttt`` or ``ttt:lora`` with settings; None if it is neither or a setting is wrong.

    Examples
    --------
    >>> adaptation_of("ttt:lr=0.01,chunk=4096").chunk
    4096
    """
    match = re.fullmatch(r"(ttt(?::lora)?)(?::(.+))?", protocol)
    if match is None:
        return None
    default = asdict(FORMS[match[1]])
    try:
        pairs = [pair.split("=") for pair in match[2].split(",")] if match[2] else []
        given = {name: type(default[name])(value) for name, value in pairs}
    except (KeyError, ValueError, TypeError):  # a setting that the form lacks has None's type
        return None
    sound = all(0 < value < math.inf for value in given.values())
    return replace(FORMS[match[1]], **given) if sound else None


@torch.no_grad()
def scored(model: nn.Module, window: Windows, copies: Offsets | int = 0) -> Event:
    """Score the targets of a window that count; `copies` (B,) are those of its rows."""
    counted = window.targets != IGNORED
    of_row = np.broadcast_to(copies, len(counted))
    ids = torch.from_numpy(window.inputs).to(next(model.parameters()).device)
    logits = model(ids)[torch.from_numpy(counted).to(ids.device)]
    log_p, of_target = logits.float().log_softmax(dim=-1), np.repeat(of_row, counted.sum(axis=1))
    return Event(offsets=window.offsets[counted], log_p=log_p, window=window, copies=of_target)


def score_first(
    model: nn.Module, tokens: Tokens, *, how: Adaptation, sequence_length: int
) -> Iterator[Event]:
    """Score a packed split, learning from each chunk once it is scored; `model` stays as it is.

    Parameters
    ----------
    model : module
        Maps ids (B, T) to logits (B, T, V). With a rank its `nn.Linear` layers are corrected; they
        must keep the rows apart and in order.
    """
    follow = _follow_text if how.rank is None else _follow_documents
    return follow(copy.deepcopy(model).eval(), tokens, how, sequence_length)


def _follow_text(model: nn.Module, tokens: Tokens, how: Adaptation, length: int) -> Iterator[Event]:
    """Score a chunk, learn from it, and so on; the last chunk is not learned from."""
    learned = list(model.requires_grad_().parameters())
    optimizer = torch.optim.SGD(learned, lr=how.lr, momentum=MOMENTUM)
    stride = min(how.stride or length, length)
    done: list[Offsets] = []
    passes = windows(tokens, sequence_length=length, stride=stride, batch=how.rows)
    for number, window in enumerate(passes, 1):
        yield scored(model, window)
        done.append(window.offsets)
        share = window.offsets[-1, -1] / (len(tokens.ids) - 1)
        if number % max(1, how.chunk // (stride * how.rows)) == 0 and share < 1:
            optimizer.param_groups[0]["lr"] = how.lr * (1 + math.cos(math.pi * share)) / 2
            # Rows side by side, whatever the stride, and all of their targets: scored by now.
            at = np.concatenate(done)[:: -(length // stride)][::-1]
            for first in [*range(0, len(at), how.rows)] * how.epochs:
                rows = at[first : first + how.rows]
                optimizer.zero_grad()
                (_loss(model, tokens.ids[rows - 1], tokens.ids[rows]) / rows.size).backward()
                nn.utils.clip_grad_norm_(learned, CLIP)
                optimizer.step()
            yield Event(offsets=at.ravel())
            done.clear()


def _follow_documents(
    model: nn.Module, tokens: Tokens, how: Adaptation, length: int
) -> Iterator[Event]:
    """Score the next chunk of some documents, learn from it with the corrections of each."""
    begin, end = tokens.starts, np.append(tokens.starts[1:], len(tokens.ids) - 1)
    order = np.argsort(end - begin, kind="stable")  # like lengths go side by side
    chunk = min(how.chunk, length)
    for chosen in np.split(order, range(how.rows, len(order), how.rows)):
        adapted = copy.deepcopy(model).requires_grad_(False)
        optimizer = torch.optim.Adam(_corrections(adapted, len(chosen), how.rank or 1), lr=how.lr)
        left = int((end - begin)[chosen].max())
        for done in range(0, left, chunk):
            rows = _rows(tokens, begin[chosen], end[chosen], slice(done, done + chunk), length)
            event = scored(adapted, rows, chosen)
            yield event
            if done + chunk < left:
                for _ in range(how.epochs):
                    optimizer.zero_grad()
                    _loss(adapted, rows.inputs, rows.targets).backward()  # a sum keeps rows apart
                    optimizer.step()
                yield Event(offsets=event.offsets, copies=event.copies)


def _rows(tokens: Tokens, begin: Offsets, end: Offsets, part: slice, length: int) -> Windows:
    """Cut a part of each document, after as much of the document as the row holds."""
    stop = np.minimum(begin + part.stop, end)[:, None]
    at = np.maximum(begin[:, None], stop - length) + np.arange(length)  # (B, T)
    present, is_new = at < stop, at >= begin[:, None] + part.start
    at = np.where(present, at, 0)
    inputs, targets = (tokens.ids[each].astype(np.int64) for each in (at, at + 1))
    targets = np.where(present & is_new, targets, IGNORED)
    return Windows(inputs=inputs, targets=targets, offsets=at + 1, present=present)


def _corrections(model: nn.Module, n_copy: int, rank: int) -> list[nn.Parameter]:
    """Add ``up @ down`` to every linear layer, `n_copy` of them side by side; `up` starts at 0."""
    generator = torch.Generator().manual_seed(0)
    learned: list[nn.Parameter] = []

    def correct(at: int, _: nn.Module, given: Any, out: Tensor) -> Tensor:
        down, up = learned[at : at + 2]
        x = given[0].reshape(n_copy, -1, down.shape[-1])
        return out + (x @ down.mT @ up.mT).reshape(out.shape)

    for layer in [each for each in model.modules() if isinstance(each, nn.Linear)]:
        layer.register_forward_hook(partial(correct, len(learned)))
        drawn = torch.randn(rank, layer.in_features, generator=generator)
        down = (drawn / math.sqrt(layer.in_features)).to(layer.weight).repeat(n_copy, 1, 1)
        up = layer.weight.new_zeros(n_copy, layer.out_features, rank)
        learned += [nn.Parameter(down), nn.Parameter(up)]
    return learned


@torch.enable_grad()
def _loss(model: nn.Module, inputs: NDArray[Any], targets: NDArray[Any]) -> Tensor:
    """Sum the loss over the targets that count [nat]."""
    device = next(model.parameters()).device
    ids, wanted = (torch.from_numpy(each).long().to(device) for each in (inputs, targets))
    logits = model(ids).float().flatten(0, 1)
    return F.cross_entropy(logits, wanted.flatten(), ignore_index=IGNORED, reduction="sum")
