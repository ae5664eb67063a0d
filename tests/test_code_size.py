import ast
from pathlib import Path

import pytest
from code_lines import LIMITS, by_part, code_lines, totals
from repository import modules, walk

FILE_CEILING, FUNCTION_CEILING = 400, 50


def test_only_code_is_counted():
    source = '''"""Module
docstring."""

# comment
def f(x):  # counted: it holds code too
    """Docstring."""

    text = """two
    lines"""
    return text
'''
    assert sorted(code_lines(source)) == [5, 8, 9, 10]


def test_docstring_sharing_a_line_with_code_is_still_code():
    assert sorted(code_lines('def f(): "Docstring."\n')) == [1]


def test_parts_stay_under_their_limits():
    count = by_part()
    assert count["folder"] > 50  # the counter sees something
    over = {name: lines for name, lines in totals(count).items() if lines > LIMITS[name]}
    assert not over


@pytest.mark.parametrize("path", modules(), ids=lambda path: "-".join(path.parts[-2:]))
def test_files_and_functions_stay_short(path: Path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= FILE_CEILING
    counted = code_lines(source)
    for function in walk(ast.parse(source), ast.FunctionDef, ast.AsyncFunctionDef):
        span = counted & set(range(function.lineno, (function.end_lineno or 0) + 1))
        assert len(span) <= FUNCTION_CEILING, function.name
