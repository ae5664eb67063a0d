"""What a diagnostic is, and what it may ask for: a model, its text, and measurements made once."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from workbench.diagnostics.branch import mean_hidden
from workbench.diagnostics.sweep import Reducer
from workbench.evaluation import Checkpoints, OpenRun, token_table
from workbench.folder import InputError
from workbench.model import Network
from workbench.quantization import Codes, open_artifact
from workbench.result import grouped_ratio
from workbench.text import IGNORED, Data, Tokenizer, Windows, class_scheme, classify, windows

CACHED = 4096  # positions that interventions are run on
DRAWN_FROM = 2**20  # first tokens of a split that rows are drawn from
REFERENCE_ROWS = 64  # of training text for the mean hidden state

Tier = Literal["weights", "pass", "backward", "intervention"]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Tokens kept in memory, to run a model on again and again.

    Arrays over ``target`` have one entry a scored target, row by row.
    """

    inputs: Tensor  # (B, T)
    targets: Tensor  # (B, T), negative where nothing is scored
    present: Tensor  # (B, T) False where a row is padded
    group: NDArray[np.int64]  # (target,) targets of one group are one observation
    token_class: NDArray[np.int64]  # (target,) index into TOKEN_CLASSES
    bytes: NDArray[np.float64]  # (target,) bytes each target stands for

    def by_group(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum values (..., target) over the targets of each group, (..., group)."""
        _, first = np.unique(np.sort(self.group), return_index=True)
        order = np.argsort(self.group, kind="stable")
        return np.add.reduceat(values[..., order], first, axis=-1)

    def ratio(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return values (..., target) per byte, and the standard error over groups."""
        return grouped_ratio(self.by_group(values), self.by_group(self.bytes))

    def losses(self, model: Network) -> NDArray[np.float64]:
        """Return the loss of each scored target, (target,) [nat]."""
        with torch.inference_mode():
            return self.scored(model(self.inputs))

    def scored(self, logits: Tensor) -> NDArray[np.float64]:
        """Return the loss of each scored target under logits (B, T, V), (target,) [nat]."""
        counted = self.targets >= 0
        log_p = torch.log_softmax(logits[counted].float(), dim=-1)
        picked = log_p.gather(-1, self.targets[counted][:, None])[:, 0]
        losses: NDArray[np.float64] = -picked.double().cpu().numpy()
        return losses


def as_rows(
    inputs: Tensor,
    targets: Tensor,
    *,
    present: Tensor | None = None,
    group: NDArray[np.int64] | None = None,
) -> Rows:
    """Make rows of bare tensors (B, T): one class, a byte a target.

    Parameters
    ----------
    inputs, targets : (B, T) int64 tensors
        A negative target is not scored.
    present : (B, T) bool tensor, optional
        False where a row is padded; by default no row is.
    group : (B, T) int64 array, optional
        Targets of one group are one observation; by default a row is.
    """
    counted = (targets >= 0).cpu().numpy()
    by_row = np.broadcast_to(np.arange(len(inputs))[:, None], counted.shape)
    return Rows(
        inputs=inputs,
        targets=targets,
        present=torch.ones_like(inputs, dtype=torch.bool) if present is None else present,
        group=(by_row if group is None else group)[counted],
        token_class=np.zeros(counted.sum(), dtype=np.int64),
        bytes=np.ones(counted.sum()),
    )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A model on its text. What several diagnostics need is measured once, when first asked for."""

    model: Network
    data: Data
    sequence_length: int  # tokens of context
    limit: int | None = None  # tokens scored at most
    step: int = 0  # updates the model has had
    checkpoints: Mapping[int, Network] = field(default_factory=dict)  # kept ones, by step
    artifact: Path | None = None  # file of the model, quantised

    @property
    def history(self) -> Mapping[int, Network]:
        """The kept checkpoints before this model, and the model itself, by step."""
        return _History(self)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of model and text."""
        return self.data.tokenizer

    @cached_property
    def quantized(self) -> tuple[Network, Mapping[str, Codes | Tensor]]:
        """The artifact as a network, and what its weights are made of; see `open_artifact`."""
        assert self.artifact is not None, "asked of a sample without an artifact"
        return open_artifact(self.artifact)

    @cached_property
    def table(self) -> xr.Dataset:
        """Token table of the validation split."""
        return token_table(
            self.model,
            self.data.validation,
            self.tokenizer,
            sequence_length=self.sequence_length,
            limit=self.limit,
        )

    @cached_property
    def cut(self) -> Windows:
        """Rows of the validation split that samples are drawn from, bounded in memory."""
        limit = min(self.limit or DRAWN_FROM, DRAWN_FROM)
        # One batch holds them all: a record row scores fewer tokens than it has.
        found = windows(
            self.data.validation,
            sequence_length=self.sequence_length,
            limit=limit,
            batch=DRAWN_FROM,
        )
        return next(found)

    @cached_property
    def rows(self) -> Rows:
        """Rows drawn from all of `cut`, about `CACHED` positions."""
        tokens, cut = self.data.validation, self.cut
        n_row = min(max(2, CACHED // self.sequence_length), len(cut.inputs))
        chosen = np.sort(np.random.default_rng(0).choice(len(cut.inputs), n_row, replace=False))
        inputs, targets = cut.inputs[chosen], cut.targets[chosen]
        counted = targets != IGNORED
        ids, previous = targets[counted], inputs[counted]
        device = self.model.head_weight.device
        scheme = class_scheme(self.tokenizer)
        return Rows(
            inputs=torch.from_numpy(inputs).to(device),
            targets=torch.from_numpy(targets).to(device),
            present=torch.from_numpy(cut.present[chosen]).to(device),
            group=tokens.group_of(cut.offsets[chosen][counted]),
            token_class=classify(scheme, ids, previous).astype(np.int64),
            bytes=self.tokenizer.byte_counts(ids, previous).astype(np.float64),
        )

    @cached_property
    def reference(self) -> tuple[NDArray[np.float64], str]:
        """Mean hidden state over training text, and what that text is."""
        tokens, length = self.data.train, self.sequence_length
        if tokens.answers is not None:
            records = [tokens.ids[tokens.document(i)] for i in range(tokens.n_document)]
            by_length: dict[int, list[NDArray[np.int32]]] = {}
            for ids in records:
                by_length.setdefault(len(ids), []).append(ids)
            rows = [np.stack(group).astype(np.int64) for group in by_length.values()]
            about = f"all positions of {tokens.n_document} training records"
        else:
            limit = REFERENCE_ROWS * length
            rows = [w.inputs for w in windows(tokens, sequence_length=length, limit=limit)]
            about = f"the first {sum(map(np.size, rows)):,} tokens of the training split"
        return mean_hidden(self.model, rows), about


class _History(Mapping[int, Network]):
    """Checkpoints of a sample up to its own step, each loaded when asked for and not held."""

    def __init__(self, of: Sample) -> None:
        self.of = of

    def __getitem__(self, step: int) -> Network:
        return self.of.model if step == self.of.step else self.of.checkpoints[step]

    def __iter__(self) -> Iterator[int]:
        yield from sorted({each for each in self.of.checkpoints if each < self.of.step})
        yield self.of.step

    def __len__(self) -> int:
        return len(list(iter(self)))


def sample(
    model: OpenRun | Network,
    corpus: Data | str | None = None,
    *,
    tokens: int | None = None,
    sequence_length: int | None = None,
) -> Sample:
    """Put a model and a text together.

    Parameters
    ----------
    model : OpenRun or Network
        A run brings its text, context and kept checkpoints; a network alone needs `corpus` to be
        opened data.
    corpus : Data or str, optional
        Another text than the run's own: opened data, a known name, or a path.
    tokens : int, optional
        Score about this many tokens at most.
    sequence_length : int, optional
        Tokens of context; by default what the run was trained with, or 256 for a network,
        less where it knows fewer positions.

    Raises
    ------
    InputError
        If a network comes without opened data.
    """
    if isinstance(model, OpenRun):
        data = corpus if isinstance(corpus, Data) else model.data_of(corpus)
        return Sample(
            model=model.model,
            data=_covering(data, model.model.config.vocab_size),
            sequence_length=sequence_length or model.sequence_length,
            limit=tokens,
            step=int(model.record["steps_done"]),
            checkpoints=Checkpoints(model),
            artifact=_artifact(model),
        )
    if not isinstance(corpus, Data):
        raise InputError(
            "corpus",
            expected="opened data, since a network alone does not bring its tokenizer",
            found=repr(corpus),
            remedy="Pass text.open_data(...), or a run from evaluation.open_run(...).",
        )
    length = sequence_length or min(256, getattr(model, "longest", 256))
    data = _covering(corpus, model.config.vocab_size)
    return Sample(model=model, data=data, sequence_length=length, limit=tokens)


def _artifact(run: OpenRun) -> Path | None:
    """Return the artifact of a run, if it was made of the weights that the run has."""
    path, record = run.folder.path / "artifact.wba", run.folder.record()  # it may be new
    made = (record.get("artifacts") or {}).get(record.get("artifact"), {})
    return path if path.exists() and made.get("weights") in (None, run.folder.weights()) else None


def _covering(data: Data, n_id: int) -> Data:
    """Name the ids that a model has beyond its tokenizer: no text holds them, logits do."""
    own, more = data.tokenizer, n_id - data.tokenizer.vocab_size
    if more < 1:
        return data
    names = tuple(f"<unused {own.vocab_size + at}>" for at in range(more))
    padded = replace(
        own,
        pieces=own.pieces + names,
        token_bytes=own.token_bytes + (b"",) * more,
        boundary=np.pad(own.boundary, (0, more), constant_values=True),
        byte_fallback=np.pad(own.byte_fallback, (0, more)),
    )
    return replace(data, tokenizer=padded)


@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    """How a diagnostic is made on a sample; each module of this part that has one names it.

    Exactly one of `measure` and `start` is given. What `start` returns is fed by the one forward
    pass over the split that such diagnostics share; `measure` works on its own.
    """

    tier: Tier  # what it costs: no pass, the shared pass, one backward pass, n forward passes
    measure: Callable[[Sample], xr.Dataset] | None = None
    start: Callable[[Sample], Reducer] | None = None
    lacks: Callable[[Sample], str] = lambda _: ""  # why there is nothing to measure, or ""
    sites: tuple[str, ...] = ()  # that it needs, beside those of what `start` returns

    def missing(self, sample: Sample) -> str:
        """Say why there is nothing to measure on a sample, or nothing."""
        asked = (*self.sites, *(self.start(sample).sites if self.start else ()))
        absent = [site for site in asked if site not in sample.model.sites()]
        return self.lacks(sample) or (f"this model has no site {absent[0]}" if absent else "")
