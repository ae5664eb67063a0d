"""What every importer of a foreign checkpoint returns: a loaded network and where it came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.model.network import Network


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
