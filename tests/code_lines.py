"""Print code lines by part of the library, and fail where it has outgrown its limits.

A code line holds at least one token that is neither comment nor docstring.
"""

import ast
import io
import sys
import tokenize
from collections import Counter

from repository import PACKAGE, docstring_of, modules, part_of

# The second was 9,000 before panels, foreign models and quantisation came in; LOG.md says why.
LIMITS = {"model + training + quantization": 4_200, "workbench": 18_550}
SILENT = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


def code_lines(source: str) -> set[int]:
    """Number the lines of `source` that hold code.

    Examples
    --------
    >>> sorted(code_lines('"Doc."\\n\\nx = [  # why\\n    1,\\n    # note\\n]\\n'))
    [3, 4, 6]
    """
    docstrings = (docstring_of(node) for node in ast.walk(ast.parse(source)))
    starts = {(each.lineno, each.col_offset) for each in docstrings if each}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT and token.start not in starts:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines


def by_part() -> Counter[str]:
    """Count the code lines of each part."""
    count: Counter[str] = Counter()
    for path in modules():
        count[part_of(path) or "__init__"] += len(code_lines(path.read_text(encoding="utf-8")))
    return count


def totals(count: Counter[str]) -> dict[str, int]:
    """Sum the parts that share a limit."""
    small = sum(count[part] for part in ("model", "training", "quantization"))
    return {"model + training + quantization": small, "workbench": sum(count.values())}


def main() -> int:
    """Print the table; 1 when a limit is broken."""
    count = by_part()
    print(f"code lines of {PACKAGE.name}/ (no blanks, comments, docstrings)")
    for part, lines in sorted(count.items()):
        print(f"  {part:<32}{lines:>6,}")
    broken = False
    for name, lines in totals(count).items():
        broken |= lines > LIMITS[name]
        print(f"{name:<34}{lines:>6,}  of {LIMITS[name]:,}")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
