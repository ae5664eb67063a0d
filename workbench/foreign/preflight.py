"""Does a checkpoint fit its tokenizer, and was it really loaded: judged before any step."""

import math
from pathlib import Path
from typing import Any

from workbench.foreign.huggingface_config import ArchMismatch, problem
from workbench.model.config import ModelConfig
from workbench.text import Tokenizer, load_tokenizer

SLACK = 0.02  # share of embedding rows without a token from which a warning is due


def preflight_tokenizer(
    tokenizer: Tokenizer | Path,
    config: ModelConfig,
    *,
    from_scratch: bool = False,
    model_path: object = "model",
    tokenizer_path: object = "",
) -> dict[str, Any]:
    """Compare the ids that a tokenizer can produce with the embedding rows of a model.

    Parameters
    ----------
    tokenizer : Tokenizer or Path
        A file or folder is loaded.
    config : ModelConfig
    from_scratch : bool
        Then the sizes must be equal; a loaded checkpoint may reserve rows.
    model_path, tokenizer_path : object
        What a message names them by; a `tokenizer` that is a path names itself.

    Returns
    -------
    dict
        ``tokenizer_size``, ``vocab_size``, ``mode`` and ``note``, a warning or empty.

    Raises
    ------
    ArchMismatch
        If an id has no row (arch-010), or the sizes of a fresh model differ (arch-006).
    InputError
        If the tokenizer is missing or broken.
    """
    loaded = load_tokenizer(tokenizer) if isinstance(tokenizer, Path) else tokenizer
    size, rows = loaded.vocab_size, config.vocab_size
    mode = "from scratch" if from_scratch else "from a checkpoint"
    if size > rows or (from_scratch and size != rows):
        rule, most = ("arch-006", "exactly") if from_scratch else ("arch-010", "at most")
        expected = f"{most} {rows} rows of {model_path} ({mode})"
        own = tokenizer if isinstance(tokenizer, Path) else f"tokenizer ({loaded.kind})"
        raise ArchMismatch(tokenizer_path or own, [problem(rule, "tokenizer size", expected, size)])
    idle = rows - size
    note = f"{idle} of {rows} embedding rows have no token: is this the tokenizer of the model?"
    return {
        "tokenizer_size": size,
        "vocab_size": rows,
        "mode": mode,
        "note": note if idle > SLACK * rows else "",
    }


def init_loss_verdict(
    loss: float, *, vocab_size: int, scratch: float | None = None
) -> dict[str, Any]:
    """Judge the loss before the first step: a checkpoint that was loaded knows something.

    Parameters
    ----------
    loss : float
        Mean loss of the checkpoint on validation text [nat/token].
    vocab_size : int
    scratch : float, optional
        Loss of a fresh network of the same shape on the same tokens [nat/token].

    Returns
    -------
    dict
        ``passed``, by limits that scale with ``ln(vocab_size)``; ``absolute``, by the limits for
        a vocabulary of 50,257 (at most 6.0, scratch from 9.5, a gap of 3.0); and ``diagnosis``.
    """
    blind = math.log(vocab_size)  # loss of a model that knows nothing
    passed, absolute = loss <= 0.55 * blind, loss <= 6.0  # NaN fails
    if scratch is not None:
        gap = scratch - loss
        passed &= abs(scratch - blind) <= 1.5 and gap >= 0.28 * blind
        absolute &= scratch >= 9.5 and gap >= 3.0
    if passed:
        diagnosis = "loaded"
    elif not loss <= 1.15 * blind:
        diagnosis = "loaded but computed wrongly: look at rotation, head order, tie, transposition"
    elif loss >= 0.85 * blind:
        diagnosis = "as good as not loaded: loss is that of a model that knows nothing"
    else:
        diagnosis = "loaded in part, of other text, or hardly trained"
    return {"passed": passed, "absolute": absolute, "diagnosis": diagnosis}
