"""A user's own table of prompts and answers, read as profiles."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.folder import InputError
from workbench.text.world import TERMINATOR, Record

FIELDS = ("prompt", "target", "profile", "id")


def read_profiles(path: str | Path) -> dict[str, tuple[Record, ...]]:
    """Read a table of records, grouped by profile in order of first appearance.

    Spaces around a target, a final full stop of it, and spaces at the end of a prompt are taken
    away; the target then begins with one space and the terminator is added where it is tokenised.

    Parameters
    ----------
    path : str or Path
        A ``.jsonl`` file (one object a line) or a ``.csv`` file (with a header), with the fields
        ``prompt`` and ``target`` and, if wanted, ``profile`` (default: the file's name) and ``id``
        (default: profile and row number).

    Returns
    -------
    dict of str to tuple of Record
        By profile.

    Raises
    ------
    InputError
        If the file is missing, of another kind, empty or broken, a field is missing or not text,
        a prompt or target is empty, or an id occurs twice in a profile; the line is named.
    """
    path = Path(path)
    profiles: dict[str, list[Record]] = {}
    taken: set[tuple[str, str]] = set()
    for line, row in _rows(path):
        record = _record(row, where=f"{path}, line {line}", path=path, line=line)
        if (record.profile, record.id) in taken:
            raise InputError(
                f"{path}, line {line}",
                expected="an id not yet used in its profile",
                found=repr(record.id),
                remedy="Number the records, or leave the field 'id' out.",
            )
        taken.add((record.profile, record.id))
        profiles.setdefault(record.profile, []).append(record)
    if not profiles:
        raise InputError(
            path,
            expected="at least one record",
            found="none",
            remedy="Add rows with the fields prompt and target.",
        )
    return {name: tuple(records) for name, records in profiles.items()}


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number and fields of every row."""
    if not path.is_file():
        raise InputError(path, expected="a file", found="no file", remedy="Check the path.")
    readers = {".jsonl": _jsonl_rows, ".csv": _csv_rows}
    if path.suffix not in readers:
        raise InputError(
            path,
            expected="a .jsonl or .csv file",
            found=path.suffix or "no suffix",
            remedy="Save the table in one of these formats.",
        )
    try:
        yield from readers[path.suffix](path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            path, expected="text in UTF-8", found=str(error), remedy="Save the table anew."
        ) from None


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a .jsonl file."""
    for line, text in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            row = str(error)
        if not isinstance(row, dict):
            raise InputError(
                f"{path}, line {line}",
                expected="one JSON object",
                found=row if isinstance(row, str) else type(row).__name__,
                remedy="Write one object a line, with the fields prompt and target.",
            )
        yield line, row


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a .csv file; a spreadsheet's byte order mark is passed over."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        for row in reader:
            yield reader.line_num, {name: value for name, value in row.items() if name}


def _record(row: dict[str, Any], *, where: str, path: Path, line: int) -> Record:
    """Check one row and make it a record."""
    fields = {name: row[name] for name in FIELDS if row.get(name) not in (None, "")}
    fields = {name: str(value) if name == "id" else value for name, value in fields.items()}
    for name, value in fields.items():
        if not isinstance(value, str):
            raise InputError(
                where,
                expected=f"text in field {name!r}",
                found=type(value).__name__,
                remedy="Put the value in quotes.",
            )
    prompt = fields.get("prompt", "").rstrip(" ")
    target = fields.get("target", "").strip().removesuffix(TERMINATOR).rstrip()
    for name, value in (("prompt", prompt), ("target", target)):
        if not value:
            raise InputError(
                where,
                expected=f"a field {name!r} that is not empty",
                found=f"the fields {', '.join(sorted(row)) or 'none'}",
                remedy="Every row needs a prompt and a target.",
            )
    profile = fields.get("profile", path.stem)
    return Record(
        id=fields.get("id", f"{profile}-{line}"),
        prompt=prompt,
        target=f" {target}",
        profile=profile,
        source=f"table:{profile}",
    )
