"""A user's own table of prompts and answers, read as profiles."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.folder import InputError
from workbench.text.documents import json_lines, read_text
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
        where = f"{path}, line {line}"
        record = _record(row, where=where, path=path, line=line)
        if (record.profile, record.id) in taken:
            wanted = "an id not yet used in its profile"
            remedy = "Number the records, or leave the field 'id' out."
            raise InputError(where, expected=wanted, found=repr(record.id), remedy=remedy)
        taken.add((record.profile, record.id))
        profiles.setdefault(record.profile, []).append(record)
    if not profiles:
        remedy = "Add rows with the fields prompt and target."
        raise InputError(path, expected="at least one record", found="none", remedy=remedy)
    return {name: tuple(records) for name, records in profiles.items()}


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number and fields of every row."""
    if not path.is_file():
        raise InputError(path, expected="a file", found="no file", remedy="Check the path.")
    if path.suffix == ".jsonl":
        yield from json_lines(path)
    elif path.suffix == ".csv":
        yield from _csv_rows(path)
    else:
        wanted, found = "a .jsonl or .csv file", path.suffix or "no suffix"
        remedy = "Save the table in one of these formats."
        raise InputError(path, expected=wanted, found=found, remedy=remedy)


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a .csv file, which has a header."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        for row in reader:
            yield reader.line_num, {name: value for name, value in row.items() if name}
    except csv.Error as error:
        remedy = "Save the table anew."
        raise InputError(path, expected="a CSV file", found=str(error), remedy=remedy) from None


def _record(row: dict[str, Any], *, where: str, path: Path, line: int) -> Record:
    """Check one row and make it a record."""
    fields = {name: row[name] for name in FIELDS if row.get(name) not in (None, "")}
    fields = {name: str(value) if name == "id" else value for name, value in fields.items()}
    for name, value in fields.items():
        if not isinstance(value, str):
            wanted, found = f"text in field {name!r}", type(value).__name__
            raise InputError(where, expected=wanted, found=found, remedy="Put the value in quotes.")
    prompt = fields.get("prompt", "").rstrip(" ")
    target = fields.get("target", "").strip().removesuffix(TERMINATOR).rstrip()
    for name, value in (("prompt", prompt), ("target", target)):
        if not value:
            wanted = f"a field {name!r} that is not empty"
            found = f"the fields {', '.join(sorted(row)) or 'none'}"
            remedy = "Every row needs a prompt and a target."
            raise InputError(where, expected=wanted, found=found, remedy=remedy)
    profile = fields.get("profile", path.stem)
    return Record(
        id=fields.get("id", f"{profile}-{line}"),
        prompt=prompt,
        target=f" {target}",
        profile=profile,
        source=f"table:{profile}",
    )
