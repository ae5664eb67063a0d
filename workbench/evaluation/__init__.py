"""Bits per byte by protocol and their certificate, the token table, generation, opened runs."""

from workbench.evaluation.certificate import Ledger, certify
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
    score_events,
    stride_of,
    token_table,
)
from workbench.evaluation.score_first import Event

__all__ = [
    "BitsPerByte",
    "Checkpoints",
    "Columns",
    "Event",
    "Ledger",
    "OpenRun",
    "bits_per_byte",
    "certify",
    "evaluate",
    "generate",
    "label_table",
    "open_run",
    "ratio_error",
    "save_evaluation",
    "score",
    "score_batches",
    "score_events",
    "stride_of",
    "summarize",
    "token_table",
]
