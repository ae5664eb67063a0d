"""Checkpoints of other formats in and out, and models of other libraries as they are."""

from workbench.foreign.adapter import Adapter, adapt
from workbench.foreign.huggingface import read_huggingface, write_huggingface
from workbench.foreign.huggingface_config import ArchMismatch, family_of
from workbench.foreign.loaded import Foreign
from workbench.foreign.parameter_golf import read_parameter_golf, write_parameter_golf
from workbench.foreign.preflight import init_loss_verdict, preflight_tokenizer

__all__ = [
    "Adapter",
    "ArchMismatch",
    "Foreign",
    "adapt",
    "family_of",
    "init_loss_verdict",
    "preflight_tokenizer",
    "read_huggingface",
    "read_parameter_golf",
    "write_huggingface",
    "write_parameter_golf",
]
