"""Bits per byte by protocol, the token table, generation, and opened runs."""

from workbench.evaluation.generation import generate, generate_ids
from workbench.evaluation.opened import (
    Checkpoints,
    OpenRun,
    evaluate,
    open_run,
    save_evaluation,
    summarize,
)
from workbench.evaluation.score import (
    BitsPerByte,
    bits_per_byte,
    ratio_error,
    score_batches,
    stride_of,
    token_table,
)

__all__ = [
    "BitsPerByte",
    "Checkpoints",
    "OpenRun",
    "bits_per_byte",
    "evaluate",
    "generate",
    "generate_ids",
    "open_run",
    "ratio_error",
    "save_evaluation",
    "score_batches",
    "stride_of",
    "summarize",
    "token_table",
]
