"""All diagnostics that apply to a run, on one sample of its text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from workbench import result
from workbench.diagnostics.branch import BranchStates, mean_hidden, states_at
from workbench.diagnostics.effective_rank import effective_rank
from workbench.diagnostics.logit_prior import explain, logit_prior
from workbench.diagnostics.routing_audit import routing_audit
from workbench.diagnostics.self_test import self_test
from workbench.diagnostics.token_loss import token_loss
from workbench.diagnostics.value_residual import value_residual
from workbench.evaluation import Checkpoints, OpenRun, token_table
from workbench.folder import InputError, code_version, nearest, replacing
from workbench.text import (
    IGNORED,
    TOKEN_CLASSES,
    Data,
    Record,
    Windows,
    class_scheme,
    classify,
    frequency_deciles,
    windows,
)

SAMPLE = 4096  # positions for diagnostics that keep activations
DRAWN_FROM = 2**20  # first tokens of a split that rows are drawn from
RECORDS = 512  # predictions of running text whose margins are split
EARLIEST = 16  # tokens of context before a prediction counts as one made from context
REFERENCE_ROWS = 64  # of training text for the mean hidden state


@dataclass(frozen=True)
class Sample:
    """What a diagnostic may ask for: the run, its data, and shared measurements made once."""

    run: OpenRun
    data: Data
    limit: int | None  # tokens scored at most

    @cached_property
    def table(self) -> xr.Dataset:
        """Token table of the validation split."""
        return token_table(
            self.run.model,
            self.data.validation,
            self.run.tokenizer,
            sequence_length=self.run.sequence_length,
            limit=self.limit,
        )

    @cached_property
    def cut(self) -> Windows:
        """Rows of the validation split that samples are drawn from, bounded in memory."""
        length = self.run.sequence_length
        limit = min(self.limit or DRAWN_FROM, DRAWN_FROM)
        # One batch holds them all: a record row scores fewer tokens than it has.
        return next(
            windows(self.data.validation, sequence_length=length, limit=limit, batch=DRAWN_FROM)
        )

    @cached_property
    def rows(self) -> dict[str, Any]:
        """Rows drawn from all of `cut`, as `value_residual` takes them."""
        tokens, cut = self.data.validation, self.cut
        n_row = min(max(2, SAMPLE // self.run.sequence_length), len(cut.inputs))
        chosen = np.sort(np.random.default_rng(0).choice(len(cut.inputs), n_row, replace=False))
        device = self.run.model.head_weight.device
        drawn: dict[str, Any] = {
            name: torch.from_numpy(getattr(cut, name)[chosen]).to(device)
            for name in ("inputs", "targets", "present")
        }
        inside = np.minimum(cut.offsets[chosen], len(tokens.ids) - 1)  # padding may lie beyond
        return drawn | {"group": tokens.group_of(inside)}

    @cached_property
    def reference(self) -> tuple[NDArray[np.float64], str]:
        """Mean hidden state over training text, and what that text is."""
        tokens, length = self.data.train, self.run.sequence_length
        if tokens.answers is not None:
            rows = [
                tokens.ids[tokens.document(i)][None].astype(np.int64)
                for i in range(tokens.n_document)
            ]
            about = f"all positions of {tokens.n_document} training records"
        else:
            limit = REFERENCE_ROWS * length
            rows = [w.inputs for w in windows(tokens, sequence_length=length, limit=limit)]
            about = f"the first {sum(map(np.size, rows)):,} tokens of the training split"
        return mean_hidden(self.run.model, rows), about


def _effective_rank(sample: Sample) -> xr.Dataset:
    """Measure the last weights, and every kept checkpoint along `step`."""
    steps = sorted(sample.run.checkpoints())
    if not steps:
        return effective_rank(sample.run.model)
    found = [effective_rank(sample.run.at(step)) for step in steps]
    return xr.concat(found, dim=xr.Variable("step", steps), data_vars="all")


def _value_residual(sample: Sample) -> xr.Dataset:
    """Follow the value residual over the kept checkpoints."""
    kept = Checkpoints(sample.run)
    return value_residual(
        kept or {sample.run.record["steps_done"]: sample.run.model}, **sample.rows
    )


def _logit_prior(sample: Sample) -> xr.Dataset:
    """Split the predictions of a world's profiles, or of running text."""
    classes = [TOKEN_CLASSES[index] for index in class_scheme(sample.run.tokenizer).base]
    world = sample.data.corpus.world
    if world is not None:
        return logit_prior(
            sample.run.model,
            [record for group in world.profiles.values() for record in group],
            sample.run.tokenizer,
            reference=sample.reference,
            context_length=sample.run.sequence_length,
            token_classes=classes,
        )
    return explain(
        sample.run.model,
        text_states(sample),
        sample.run.tokenizer.pieces,
        reference=sample.reference,
        token_classes=classes,
    )


def text_states(sample: Sample, *, n_record: int = RECORDS) -> BranchStates:
    """Take predictions spread over the validation text; their profile is the target's class."""
    tokenizer, length = sample.run.tokenizer, sample.run.sequence_length
    scheme = class_scheme(tokenizer)
    inputs, targets = sample.cut.inputs, sample.cut.targets
    eligible = np.argwhere((targets != IGNORED) & (np.arange(length) >= min(EARLIEST, length - 1)))
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(eligible), size=min(n_record, len(eligible)), replace=False)
    records, contexts, answers = [], [], []
    for row, position in eligible[np.sort(chosen)]:
        context, target = inputs[row, : position + 1], int(targets[row, position])
        kind = int(classify(scheme, [target], context[-1:])[0])
        records.append(
            Record(
                id=f"row {row} position {position}",
                prompt=tokenizer.decode(context[-24:]),
                target=tokenizer.pieces[target],
                profile=TOKEN_CLASSES[kind],
                source="text:validation",
            )
        )
        contexts.append(context.tolist())
        answers.append(target)
    return states_at(
        sample.run.model,
        records=records,
        contexts=contexts,
        targets=np.array(answers, dtype=np.int64),
        pieces=tokenizer.pieces,
    )


def _routing_audit(sample: Sample) -> xr.Dataset:
    """Audit the profiles of a closed world."""
    world = sample.data.corpus.world
    audit = routing_audit(
        sample.run.model,
        world.profiles,
        sample.run.tokenizer,
        context_length=sample.run.sequence_length,
    )
    held_out = np.isin(audit.profile.values, world.held_out)
    audit["held_out"] = result.variable("profile", held_out, "phrasings that training never used")
    return audit


def _token_loss(sample: Sample) -> xr.Dataset:
    """Split the loss over token classes and frequency deciles of the training split."""
    ids = sample.data.train.ids
    counts = np.bincount(ids, minlength=sample.run.tokenizer.vocab_size)
    return token_loss(sample.table, deciles=frequency_deciles(counts))


def _self_test(sample: Sample) -> xr.Dataset:
    """Run the self-tests on validation text."""
    return self_test(
        sample.run.model,
        sample.data.validation,
        sample.run.tokenizer,
        sequence_length=sample.run.sequence_length,
    )


DIAGNOSTICS: dict[str, Callable[[Sample], xr.Dataset]] = {
    "self_test": _self_test,
    "effective_rank": _effective_rank,
    "value_residual": _value_residual,
    "logit_prior": _logit_prior,
    "routing_audit": _routing_audit,
    "token_loss": _token_loss,
}


def inapplicable(sample: Sample) -> dict[str, str]:
    """Name the diagnostics that have nothing to measure on this run, with the reason."""
    reasons = {}
    config = sample.run.model.config
    if config.value_residual is None:
        reasons["value_residual"] = "the network has no value residual"
    elif config.n_layer < 2:
        reasons["value_residual"] = "one block alone has no earlier value"
    if sample.data.corpus.world is None:
        reasons["routing_audit"] = "the corpus has no profiles (closed-world has)"
    return reasons


def diagnose(
    run: OpenRun,
    *,
    corpus: str | None = None,
    tokens: int | None = None,
    only: Sequence[str] | None = None,
    watch: Callable[[str], object] | None = None,
) -> dict[str, xr.Dataset]:
    """Run every diagnostic that applies, on the validation split.

    Parameters
    ----------
    run : OpenRun
    corpus : str, optional
        Another corpus than the run's own.
    tokens : int, optional
        Score about this many tokens at most.
    only : sequence of str, optional
        Names in `DIAGNOSTICS`; by default all.
    watch : callable, optional
        Called with each name before it is measured.

    Returns
    -------
    dict of str to Dataset
        A diagnostic that does not apply is absent.

    Raises
    ------
    InputError
        For an unknown name, or one asked for that does not apply; the reason is given.
    """
    for name in only or ():
        if name not in DIAGNOSTICS:
            raise InputError(
                f"diagnostic {name!r}",
                expected="a known diagnostic",
                found=repr(name),
                remedy=nearest(name, list(DIAGNOSTICS)),
            )
    sample = Sample(run, run.data_of(corpus), tokens)
    reasons = inapplicable(sample)
    for name in only or ():
        if name in reasons:
            raise InputError(
                f"diagnostic {name!r}",
                expected="something it can measure",
                found=reasons[name],
                remedy="Leave it out.",
            )
    found = {}
    for name in only or [name for name in DIAGNOSTICS if name not in reasons]:
        if watch is not None:
            watch(name)
        # Groups of one file may be measured at different times: each says its own.
        limit = "all" if tokens is None else str(tokens)
        found[name] = DIAGNOSTICS[name](sample).assign_attrs(
            measured_tokens=limit, measured_by=code_version()
        )
    return found


def save_diagnosis(
    run: OpenRun,
    groups: Mapping[str, xr.Dataset],
    *,
    corpus: str | None = None,
) -> Path:
    """Write ``diagnosis.nc`` into the run, or ``diagnosis-NAME.nc`` for another corpus.

    Groups measured before on the same data are kept.
    """
    data = run.data_of(corpus)
    own = data.corpus.hash == run.record["data"]["corpus_hash"]
    stem = "diagnosis" if own else f"diagnosis-{Path(data.corpus.name).stem}"
    path = run.folder.path / f"{stem}.nc"
    provenance = {
        **run.provenance(),
        "measured_on": data.corpus.name,
        "measured_corpus_hash": data.corpus.hash,
        "class_scheme_hash": class_scheme(data.tokenizer).hash,
    }
    with replacing(path) as scratch:
        result.save({**_kept(path, provenance), **groups}, scratch, provenance=provenance)
    return path


def _kept(path: Path, provenance: Mapping[str, Any]) -> dict[str, xr.Dataset]:
    """Read the groups of an earlier diagnosis of the same data, if there is a readable one."""
    try:
        before = result.open_tree(path)
    except OSError:  # missing, or damaged: then it is made anew
        return {}
    if result.provenance(before) != provenance:
        return {}
    return {name: node.to_dataset() for name, node in before.children.items()}
