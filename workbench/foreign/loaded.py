"""What every importer of a foreign checkpoint returns: a loaded network and where it came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.folder import InputError
from workbench.model.network import Network

LAYERS = 1000  # at most made, be it without data, of what the names in a file say
CHECK = "Check the path, or copy the file again."


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A network made elsewhere, with the origin of every fact about it."""

    network: Network  # weights loaded, in evaluation mode
    format: str  # "huggingface", "parameter-golf"
    sources: Mapping[str, str]  # field -> "config.json", "Qwen2 default", "weights", "given", ...
    tokenizer: Path | None  # file that the checkpoint brings, not yet loaded
    corpus: Path | None = None
    sequence_length: int | None  # tokens of context it was made for
    metrics: Sequence[Mapping[str, Any]] = ()  # its training log, one mapping a line
    notes: Mapping[str, Any] = field(default_factory=dict)  # file hashes, recorded scores, warnings


def check_file(path: Path, *, most: int = 2**26) -> None:
    """Refuse what is no plain file (a pipe never ends), or has more bytes than it may.

    What is not there is left to the reader to tell.

    Raises
    ------
    InputError
        That names the path.
    """
    if not path.exists() or (path.is_file() and path.stat().st_size <= most):
        return
    found = (
        f"{path.stat().st_size:,} bytes, more than {most:,}" if path.is_file() else "no plain file"
    )
    raise InputError(path, expected="a file of plausible size", found=found, remedy=CHECK)


def check_length(path: Path, length: Any) -> None:
    """Refuse a context that is no number of tokens; None is as the checkpoint says.

    Raises
    ------
    InputError
        That names the checkpoint.
    """
    if length is not None and not (isinstance(length, int) and length > 0):
        wanted, remedy = "a sequence_length of 1 token or more", "Change or leave it out."
        raise InputError(path, expected=wanted, found=repr(length), remedy=remedy)
