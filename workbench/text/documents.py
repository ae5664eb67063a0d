"""Documents out of files: plain text, JSON lines and Parquet.

What is cut is never lost: the documents of a text file, joined, are the file.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.folder import InputError, nearest

PIECE_CHARACTERS = 4096  # of a long text without titles
MIN_PIECE_CHARACTERS = 256  # of a short one, which would otherwise be too few documents to split
MIN_PIECES = 40
# WikiText writes "= Title =" above an article, "= = Section = =" above its parts.
TITLE = re.compile(r"=[^\S\n]+(?!=)[^\n]*(?<!=)[^\S\n]+=")
PLACES_TO_CUT = (r"\n(?:[^\S\n]*\n)+", r"\n", r" +")  # paragraphs, else lines, else words


def read_documents(path: Path, text_field: str) -> list[str]:
    """Read the documents of one file by its suffix; blank ones are left out.

    Parameters
    ----------
    path : Path
        A ``.txt``, ``.jsonl`` or ``.parquet`` file.
    text_field : str
        Field that holds the text, in the last two.

    Raises
    ------
    InputError
        If the file is not what its suffix says, or lacks the field.
    """
    if path.suffix == ".jsonl":
        documents = [_text_of(row, f"{path} line {n}", text_field) for n, row in json_lines(path)]
    elif path.suffix == ".parquet":
        documents = _parquet(path, text_field)
    else:
        documents = cut_text(read_text(path))
    return [document for document in documents if document.strip()]


def read_text(path: Path) -> str:
    """Read a UTF-8 file as it is, line ends included; only a byte order mark is left out.

    Raises
    ------
    InputError
        If the bytes are not UTF-8; the offset of the first bad one is named.
    """
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02X} at offset {error.start}"
        remedy = "Convert it, for example: iconv -f latin1 -t utf-8."
        raise InputError(path, expected="UTF-8 text", found=found, remedy=remedy) from None


def cut_text(text: str) -> list[str]:
    r"""Cut one text into documents: at its titles, or else at ends of paragraphs.

    A title is a line such as ``= Title =`` between blank lines; two of them are needed.

    Examples
    --------
    >>> cut_text("\n = A = \n\nfirst\n\n = B = \n\nsecond\n")
    ['\n = A = \n\nfirst\n\n', ' = B = \n\nsecond\n']
    """
    titles = list(_title_offsets(text))
    if len(titles) < 2:
        return _cut_paragraphs(text)
    if not text[: titles[0]].strip():
        titles = titles[1:]  # the blank start belongs to the first article
    return _cut_at(text, titles)


def _cut_at(text: str, offsets: list[int]) -> list[str]:
    """Cut a text at the given offsets."""
    bounds = [0, *offsets, len(text)]
    pairs = zip(bounds, bounds[1:], strict=False)
    return [text[start:stop] for start, stop in pairs if stop > start]


def _title_offsets(text: str) -> Iterator[int]:
    """Yield the offsets of the lines that are top-level titles."""
    lines = text.split("\n")
    blank = [True, *(not line.strip() for line in lines), True]  # blank[i] is the line before i
    offset = 0
    for number, line in enumerate(lines):
        if blank[number] and blank[number + 2] and TITLE.fullmatch(line.strip()):
            yield offset
        offset += len(line) + 1


def _cut_paragraphs(text: str) -> list[str]:
    """Cut a text into pieces of moderate size where its paragraphs end."""
    size = min(PIECE_CHARACTERS, max(MIN_PIECE_CHARACTERS, len(text) // MIN_PIECES))
    for pattern in PLACES_TO_CUT:
        pieces = _cut_at(text, list(_cuts(text, pattern, size)))
        if len(pieces) > 1:
            return pieces
    return [text]


def _cuts(text: str, pattern: str, size: int) -> Iterator[int]:
    """Yield the ends of matches that are at least `size` apart."""
    last = 0
    for match in re.finditer(pattern, text):
        if match.end() - last >= size and match.end() < len(text):
            last = match.end()
            yield last


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number and object of each line of a JSON lines file; blank lines are passed over.

    Raises
    ------
    InputError
        If a line is not one JSON object; it is named.
    """
    # Only "\n" ends a line: JSON strings may hold the other Unicode line ends.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            found = f"a JSON {type(row).__name__}"
        except json.JSONDecodeError as error:
            row, found = None, str(error)
        if not isinstance(row, dict):
            where, remedy = f"{path} line {number}", "Write {...} in each line."
            raise InputError(where, expected="one JSON object", found=found, remedy=remedy)
        yield number, row


def _text_of(row: dict[str, Any], where: str, text_field: str) -> str:
    """Return the text of a row."""
    if text_field not in row:
        raise _no_field(where, text_field, list(row))
    return _text(row[text_field], where, text_field)


def _parquet(path: Path, text_field: str) -> list[str]:
    """Read the text column of a Parquet file; missing values are blank documents."""
    import pyarrow  # heavy, and only needed here
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        found, remedy = f"a broken one ({error})", "Copy it again; Git LFS pointers are not data."
        raise InputError(path, expected="a Parquet file", found=found, remedy=remedy) from None
    with file:
        names = file.schema_arrow.names
        if text_field not in names:
            raise _no_field(path, text_field, names)
        values = file.read(columns=[text_field]).column(text_field).to_pylist()
    return [
        _text("" if value is None else value, f"{path} row {row}", text_field)
        for row, value in enumerate(values, start=1)
    ]


def _no_field(where: object, text_field: str, names: list[str]) -> InputError:
    """Say which fields there are."""
    wanted = f"a field {text_field!r} with the text"
    found = f"fields {', '.join(names) or '(none)'}"
    remedy = f"Set text_field. {nearest(text_field, names) if names else ''}".strip()
    return InputError(where, expected=wanted, found=found, remedy=remedy)


def _text(value: Any, where: str, text_field: str) -> str:
    """Return a field's value if it is text that UTF-8 can write."""
    found = f"{type(value).__name__} in field {text_field!r}"
    if isinstance(value, str):
        try:
            value.encode("utf-8")
            return value
        except UnicodeEncodeError as error:
            found = f"the lone surrogate U+{ord(value[error.start]):04X}"
    raise InputError(where, expected="text", found=found, remedy="Name another text_field or row.")
