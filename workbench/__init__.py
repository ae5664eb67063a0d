"""Diagnostic workbench for small language models.

Nothing heavy is imported here: ``from workbench import diagnostics`` imports what that part needs.
"""

__version__ = "0.1.0"
