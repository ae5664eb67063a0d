"""Diagnostic workbench for small language models.

Nothing heavy is imported here: ``from workbench import diagnostics`` imports what that part needs,
and ``workbench.watch`` is looked up when it is first asked for.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

ENTRANCES = {"watch": "workbench.training"}  # name: the part that has it


def __getattr__(name: str) -> Any:
    """Look up an entrance only once it is used: its part imports torch."""
    if name not in ENTRANCES:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    return getattr(import_module(ENTRANCES[name]), name)
