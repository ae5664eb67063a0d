"""Make the folder of a run, once everything it needs has proved good."""

from collections.abc import Callable, Mapping

import numpy as np

from workbench.folder import InputError, RunFolder, create_run, find_run, write_json
from workbench.model import Network, to_json
from workbench.text import Data, record_batches, stream_batches, windows
from workbench.training.config import TrainConfig


def begin(
    name: str,
    model: Network,
    data: Data,
    config: TrainConfig,
    *,
    origin: Mapping[str, str] | None = None,
    replace: bool = False,
) -> RunFolder:
    """Make the folder of a run about to be trained: its record, tokenizer and configuration.

    Parameters
    ----------
    origin : mapping, optional
        ``parent`` (a run) and ``initial_state`` (a file), as far as they apply.
    replace : bool
        Remove a run of that name first.

    Raises
    ------
    InputError
        If the data do not fit the model or the name is taken; nothing is made then.
    """
    check_data(model, data, sequence_length=config.sequence_length)
    batches(data, config)(0)  # too short a corpus is refused before anything is written
    parent = (origin or {}).get("parent") or None
    if parent is not None:
        theirs = find_run(parent).record()["data"]["tokenizer_hash"]
        if theirs != data.tokenizer.hash:
            raise InputError(
                f"parent {parent!r}",
                expected=f"tokenizer {theirs[:12]}, the parent's",
                found=f"tokenizer {data.tokenizer.hash[:12]}",
                remedy="Pass -p tokenizer with the parent's tokenizer folder.",
            )
    run = describe(name, model, data, replace=replace)
    write_json(run.path / "model.json", to_json(model.config))
    run.update(
        parent=parent,
        initial_state=(origin or {}).get("initial_state") or None,
        seed=config.seed,
    )
    return run


def check_data(model: Network, data: Data, *, sequence_length: int) -> None:
    """Refuse a tokenizer with more ids than the model has, and too short a validation split."""
    if data.tokenizer.vocab_size > model.config.vocab_size:
        raise InputError(
            "model field 'vocab_size'",
            expected=f"at least the tokenizer's {data.tokenizer.vocab_size}",
            found=str(model.config.vocab_size),
            remedy="Leave it out to take the tokenizer's, or use another tokenizer.",
        )
    next(windows(data.validation, sequence_length=sequence_length))


def describe(name: str, model: Network, data: Data, *, replace: bool) -> RunFolder:
    """Make the folder of a run with its tokenizer, and record its shape and its data."""
    run = create_run(name, replace=replace)
    data.tokenizer.save(run.path / "tokenizer")
    run.update(
        model=to_json(model.config),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        data=data.identity(),
    )
    return run


def batches(data: Data, config: TrainConfig) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """Choose how the training split is cut."""
    if data.train.answers is not None:
        return record_batches(
            data.train,
            sequence_length=config.sequence_length,
            tokens_per_step=config.tokens_per_step,
            seed=config.seed,
        )
    return stream_batches(
        data.train,
        sequence_length=config.sequence_length,
        tokens_per_step=config.tokens_per_step,
        micro_batches=config.micro_batches,
    )
