"""Score tokens one by one: the token table, and bits per byte with its standard error.

Letters: ``B`` rows of a batch, ``T`` positions, ``V`` vocabulary.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from workbench.evaluation.score_first import Event, adaptation_of, score_first, scored
from workbench.folder import InputError
from workbench.result import check, grouped_ratio, variable
from workbench.text import (
    IGNORED,
    TOKEN_CLASSES,
    Tokenizer,
    Tokens,
    Windows,
    class_scheme,
    classify,
    windows,
)

Columns = dict[str, NDArray[Any]]


def stride_of(protocol: str, sequence_length: int) -> int | None:
    """Read a protocol of fixed weights: ``full`` (rows do not overlap) or ``sliding:STRIDE``.

    Raises
    ------
    InputError
        If the protocol is neither, or its stride does not fit the context. The message names the
        protocols of `score_first` too.

    Examples
    --------
    >>> stride_of("sliding:64", 256)
    64
    """
    if protocol == "full":
        return None
    match = re.fullmatch(r"sliding:([1-9]\d*)", protocol)
    if match is None or int(match[1]) > sequence_length:
        wanted = f"full, or sliding:N with N from 1 to the context {sequence_length}, or ttt"
        wanted += ", or ttt:lora, with positive settings as in ttt:lr=0.01 or ttt:lora:rank=4"
        remedy = "Use --protocol full, sliding:64 or ttt; evaluate --help names the settings."
        raise InputError("protocol", expected=wanted, found=repr(protocol), remedy=remedy)
    return int(match[1])


def score_events(
    model: nn.Module,
    tokens: Tokens,
    *,
    sequence_length: int,
    protocol: str = "full",
    limit: int | None = None,
    batch: int = 8,
) -> Iterator[Event]:
    """Score a split and tell what was done, in order; memory does not grow with its length.

    Parameters
    ----------
    model : module
        Maps ids (B, T) to logits (B, T, V). It is never changed.
    tokens : Tokens
        The split.
    sequence_length : int
        Positions the model sees.
    protocol : str
        ``full``, ``sliding:STRIDE``, or test-time training (`score_first`): ``ttt``, ``ttt:lora``.
    limit : int, optional
        Score about this many tokens only; then weights learn after a quarter of them at the latest.
    batch : int
        Rows in one forward pass; results do not depend on it beyond rounding. Test-time training
        has a setting of its own.

    Raises
    ------
    InputError
        If the protocol is not known or does not fit the split.
    """
    if tokens.answers is not None and protocol != "full":
        wanted = "full: records are rows of their own and do not slide"
        remedy = "Leave the protocol out."
        raise InputError("protocol", expected=wanted, found=repr(protocol), remedy=remedy)
    how = adaptation_of(protocol)
    if how is not None:
        if limit is not None:
            last = max(limit, sequence_length)
            how = replace(how, chunk=min(how.chunk, last // 4 + 1))
            tokens = Tokens(ids=tokens.ids[: last + 1], starts=tokens.starts[tokens.starts <= last])
        yield from score_first(model, tokens, how=how, sequence_length=sequence_length)
        return
    stride = stride_of(protocol, sequence_length)
    rows = windows(tokens, sequence_length=sequence_length, stride=stride, limit=limit, batch=batch)
    for window in rows:
        yield scored(model, window)


def score_batches(
    model: nn.Module, tokens: Tokens, *, note: Callable[[Event], None] | None = None, **cut: Any
) -> Iterator[Columns]:
    """Score a split batch by batch.

    Parameters
    ----------
    note : callable, optional
        Called with every event, such as `Ledger.note`.
    **cut
        As of `score_events`.

    Yields
    ------
    dict of str to array
        For each scored target: ``offset`` into the split, ``id``, ``previous``, ``position``,
        ``repeated`` (its token is in the context),
        ``nll`` and ``entropy`` [nat], ``rank`` from 1, ``top1`` and ``top1_probability``.
    """
    for event in score_events(model, tokens, **cut):
        if note is not None:
            note(event)
        if event.log_p is not None and event.window is not None:
            yield _columns(event.log_p, event.window)


def score(logits: Tensor, window: Windows) -> Columns:
    """Reduce the logits (B, T, V) of a window to a few numbers a scored target.

    Returns
    -------
    dict of str to array
        See `score_batches`.
    """
    counted = torch.from_numpy(window.targets != IGNORED).to(logits.device)
    return _columns(torch.log_softmax(logits[counted].float(), dim=-1), window)


def _columns(log_p: Tensor, window: Windows) -> Columns:
    """Reduce log-probabilities (target, V) to a few numbers a target."""
    counted = window.targets != IGNORED
    measured = _measure(log_p, torch.from_numpy(window.targets[counted]).to(log_p.device))
    length = window.inputs.shape[1]
    position = np.broadcast_to(np.arange(length), counted.shape)
    earlier = np.tri(length, dtype=bool)  # (T, T) inputs that a position can see
    same = window.inputs[:, None, :] == window.targets[:, :, None]  # (B, T, T)
    return {
        "offset": window.offsets[counted],
        "id": window.targets[counted],
        "previous": window.inputs[counted],
        "position": position[counted],
        "repeated": (same & earlier).any(axis=-1)[counted],
        **{name: values.cpu().numpy() for name, values in measured.items()},
    }


def _measure(log_p: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Reduce log-probabilities (token, V) to a few numbers a token."""
    of_target = log_p.gather(1, targets[:, None])
    top1_log_p, top1 = log_p.max(dim=-1)
    return {
        "nll": -of_target[:, 0].double(),
        "entropy": -(log_p.exp() * log_p).sum(dim=-1).double(),
        "rank": 1 + (log_p > of_target).sum(dim=-1),
        "top1": top1,
        "top1_probability": top1_log_p.exp().double(),
    }


def token_table(
    model: nn.Module,
    tokens: Tokens,
    tokenizer: Tokenizer,
    *,
    sequence_length: int,
    protocol: str = "full",
    limit: int | None = None,
    batch: int = 8,
    watch: Callable[[int], None] | None = None,
    note: Callable[[Event], None] | None = None,
) -> xr.Dataset:
    """Score a split into one row a token.

    Parameters
    ----------
    tokenizer : Tokenizer
        Says how many bytes each token stands for and which class it has.
    watch : callable, optional
        Called with the number of tokens scored so far.
    note : callable, optional
        Called with every event; see `score_batches`.

    Returns
    -------
    Dataset
        Dim ``token``: ``nll`` and ``entropy`` [nat], ``bytes`` [byte], ``id``, ``rank``, ``top1``,
        ``top1_probability``, ``token_class``, ``document``, ``group``, ``position``, ``repeated``.
        Attrs carry the protocol, the context and the tokens the split holds.
    """
    cut: dict[str, Any] = {"sequence_length": sequence_length, "protocol": protocol}
    parts: list[Columns] = []
    done = 0
    for part in score_batches(model, tokens, **cut, limit=limit, batch=batch, note=note):
        parts.append(part)
        done += len(part["id"])
        if watch is not None:
            watch(done)
    return label_table(parts, tokens, tokenizer, **cut)


def label_table(
    parts: Sequence[Columns],
    tokens: Tokens,
    tokenizer: Tokenizer,
    *,
    sequence_length: int,
    protocol: str = "full",
) -> xr.Dataset:
    """Join scored batches of a split into its token table; see `token_table`.

    Raises
    ------
    ValueError
        If a target was scored twice, or one before the last was left out.
    """
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(joined["offset"], kind="stable")
    columns = {name: values[order] for name, values in joined.items()}
    if not np.array_equal(columns["offset"], target_offsets(tokens)[: len(order)]):
        raise ValueError("each target is scored once: some were scored again or left out")
    ids, previous, offset = columns["id"], columns["previous"], columns["offset"]
    scheme = class_scheme(tokenizer)
    classes = classify(scheme, ids, previous)
    table = {
        "id": ("token id of the target", "1", ids.astype(np.int32)),
        "nll": ("negative log likelihood of the target", "nat", columns["nll"]),
        "entropy": ("entropy of the prediction", "nat", columns["entropy"]),
        "rank": ("rank of the target, 1 is best", "1", columns["rank"].astype(np.int32)),
        "top1": ("token id predicted first", "1", columns["top1"].astype(np.int32)),
        "top1_probability": ("probability of the first", "1", columns["top1_probability"]),
        "token_class": ("class of the target", "1", classes.astype(np.int8)),
        "bytes": ("bytes of the target", "byte", tokenizer.byte_counts(ids, previous)),
        "document": ("document", "1", tokens.document_of(offset).astype(np.int32)),
        "position": ("position in the context", "1", columns["position"].astype(np.int32)),
        "group": ("what moves together", "1", tokens.group_of(offset).astype(np.int32)),
        "repeated": ("occurred earlier in the context", "1", columns["repeated"]),
    }
    attrs = {
        "protocol": protocol if tokens.answers is None else "answers",
        "context": sequence_length,
        "split_tokens": len(tokens.ids),
        "class_names": ",".join(TOKEN_CLASSES),
        "class_scheme_hash": scheme.hash,
    }
    labelled = {
        name: variable("token", values, what, unit) for name, (what, unit, values) in table.items()
    }
    return check(xr.Dataset(labelled, attrs=attrs))


def target_offsets(tokens: Tokens) -> NDArray[np.int64]:
    """Return where in a split the targets are, in order: all but first tokens, or the answers."""
    is_target = np.ones(len(tokens.ids), bool) if tokens.answers is None else tokens.answers.copy()
    is_target[0 if tokens.answers is None else tokens.starts] = False
    return np.flatnonzero(is_target)


@dataclass(frozen=True, kw_only=True)
class BitsPerByte:
    """Bits per byte of a token table, with what is needed to compare it."""

    bits_per_byte: float  # bit/byte
    standard_error: float | None  # bit/byte, by group; None with fewer than two groups
    loss_nat: float  # nat/token
    tokens: int
    bytes: int
    documents: int
    groups: int  # independent observations: documents, or the facts of a closed world
    protocol: str
    context: int


def bits_per_byte(table: xr.Dataset) -> BitsPerByte:
    """Sum a token table to bits per byte.

    The standard error is that of a ratio of sums over groups (its linearisation): a group is a
    document, or all records of one fact in a closed world, and counts as one observation. It
    covers the choice of text, not the training seed.

    Raises
    ------
    InputError
        If a loss is not finite.
    ValueError
        If the tokens stand for no byte at all.
    """
    nll, size = table.nll.values.astype(np.float64), table.bytes.values.astype(np.float64)
    if not np.isfinite(nll).all():
        found = f"{int((~np.isfinite(nll)).sum())} of {len(nll)} that are not"
        remedy = "Look for NaN in the weights: this run has diverged."
        raise InputError("losses", expected="finite numbers", found=found, remedy=remedy)
    if size.sum() <= 0:
        raise ValueError("the scored tokens stand for no byte: is this the right tokenizer?")
    n_document = len(np.unique(table.document.values))
    value = float(nll.sum() / np.log(2) / size.sum())
    return BitsPerByte(
        bits_per_byte=value,
        standard_error=ratio_error(nll / np.log(2), size, table.group.values),
        loss_nat=float(nll.mean()),
        tokens=len(nll),
        bytes=int(size.sum()),
        documents=n_document,
        groups=len(np.unique(table.group.values)),
        protocol=str(table.attrs["protocol"]),
        context=int(table.attrs["context"]),
    )


def ratio_error(
    numerator: NDArray[np.float64], denominator: NDArray[np.float64], group: NDArray[np.generic]
) -> float | None:
    """Return the standard error of ``sum(numerator) / sum(denominator)``, grouped observations.

    Parameters
    ----------
    numerator, denominator : (token,) float64
    group : (token,) integer
        Observations of one group move together.

    Returns
    -------
    float or None
        None when there are fewer than two groups.

    See Also
    --------
    workbench.result.grouped_ratio : the formula.
    """
    _, index = np.unique(group, return_inverse=True)
    sums = [np.bincount(index, each).astype(np.float64) for each in (numerator, denominator)]
    error = float(grouped_ratio(*sums)[1])
    return None if np.isnan(error) else error
