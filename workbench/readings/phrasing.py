"""How readings write tokens and lists."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def visible(text: str, *, longest: int = 28) -> str:
    r"""Show a token as a reader or a terminal can take it: whitespace and controls made visible.

    Examples
    --------
    >>> visible("a b\n") == "a\u2423b\u21b5"
    True
    >>> visible("\x1b[31m")
    '\\x1b[31m'
    """
    whole = text if len(text) <= longest else text[: longest - 1]
    shown = printable(whole, marks={" ": "\u2423", "\n": "\u21b5", "\t": "\u21e5"})
    return shown if whole == text else shown + "\u2026"


def printable(text: str, *, marks: Mapping[str, str]) -> str:
    """Replace `marks` by theirs, and what has no glyph (controls, direction) by its escape."""
    return "".join(
        marks.get(each) or (each if each.isprintable() else each.encode("unicode_escape").decode())
        for each in text
    )


def listed(noun: str, items: Any) -> str:
    """List a few items after a noun in the right number: ``visit 3``, ``visits 3, 4``."""
    told = [str(each) for each in items]
    plural = "s" if len(told) > 1 else ""
    more = f" and {len(told) - 6} more" if len(told) > 6 else ""
    return f"{noun}{plural} {', '.join(told[:6])}{more}"


def gaps(values: Any, noun: str) -> str:
    """Say how many values are not finite, to be added to a sentence; nothing where all are."""
    missing = int((~np.isfinite(values)).sum())
    return f"; {missing} of {np.size(values)} {noun} not finite" if missing else ""


def capital(text: str) -> str:
    """Begin with a capital."""
    return text[:1].upper() + text[1:]
