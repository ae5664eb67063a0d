"""Bits per byte by protocol, the token table, generation, and opened runs."""

from workbench.evaluation.generation import generate
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
    Columns,
    bits_per_byte,
    label_table,
    ratio_error,
    score,
    score_batches,
    stride_of,
    token_table,
)

__all__ = [
    "BitsPerByte",
    "Checkpoints",
    "Columns",
    "OpenRun",
    "bits_per_byte",
    "evaluate",
    "generate",
    "label_table",
    "open_run",
    "ratio_error",
    "save_evaluation",
    "score",
    "score_batches",
    "stride_of",
    "summarize",
    "token_table",
]
