"""The registry: what runs there are, what they came from, and which of them may be compared.

It reads folders and nothing else, so listing runs needs no numeric library.
"""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.folder import InputError, RunFolder, runs_root

COLUMNS = (
    "name",
    "status",
    "parent",
    "bits_per_byte",
    "bits_per_byte_quantized",
    "protocol",
    "artifact_bytes",
    "steps",
    "seed",
)


def list_runs(root: Path | None = None) -> list[dict[str, Any]]:
    """Summarise every run, sorted by name.

    Returns
    -------
    list of dict
        `COLUMNS`, with None for what was not measured, and ``standard_error, corpus_hash, context,
        budget`` for comparisons. A folder whose record cannot be read has status ``unreadable``.
    """
    base = root or runs_root()
    return [_summary(RunFolder(path.parent)) for path in sorted(base.glob("*/run.json"))]


def _summary(run: RunFolder) -> dict[str, Any]:
    """Read one run's row."""
    try:
        record = run.record()
    except InputError:
        return {**dict.fromkeys(COLUMNS), "name": run.name, "status": "unreadable"}
    evaluation = record.get("evaluation") or {}
    return {
        "name": run.name,
        "status": record.get("status"),
        "parent": record.get("parent"),
        "bits_per_byte": evaluation.get("bits_per_byte"),
        "bits_per_byte_quantized": record.get("bits_per_byte_quantized"),
        "protocol": evaluation.get("protocol"),
        "artifact_bytes": record.get("artifact_bytes"),
        "steps": record.get("steps_done"),
        "seed": record.get("seed"),
        "standard_error": evaluation.get("standard_error"),
        "corpus_hash": evaluation.get("corpus_hash"),
        "context": evaluation.get("context"),
        "budget": _budget(record),
    }


def _budget(record: dict[str, Any]) -> str | None:
    """Say what a training run could spend; seconds count on their machine only."""
    training = record.get("training") or {}
    host = (record.get("environment") or {}).get("host")
    origin = record.get("parent") or record.get("initial_state")
    if not training.get("steps"):
        return None
    extent = f"{training['steps']} steps"
    if training.get("seconds"):
        extent = f"{training['seconds']} s on {training.get('device')} of {host}"
    return f"{extent}, {training.get('tokens_per_step')} tokens each" + (
        f", after {origin}" if origin else ""
    )


def leaderboard(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rank evaluated runs within groups that may be compared, best first.

    A group shares protocol, corpus, context and budget; between groups there is no order.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["bits_per_byte"] is not None:
            key = tuple(row[name] for name in ("corpus_hash", "protocol", "context", "budget"))
            groups.setdefault(key, []).append(row)
    return [sorted(group, key=lambda row: row["bits_per_byte"]) for group in groups.values()]


def to_text(rows: list[dict[str, Any]]) -> str:
    """Lay rows out in columns; a dash is what was not measured."""
    if not rows:
        return "no runs yet; make one: python -m workbench train --name first"
    cells = [list(COLUMNS), *([_cell(row[name]) for name in COLUMNS] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def to_leaderboard(rows: list[dict[str, Any]]) -> str:
    """Lay out each comparable group under a line that says what its runs share."""
    parts = []
    for group in leaderboard(rows):
        first = group[0]
        parts.append(
            f"corpus {str(first['corpus_hash'])[:12]}, protocol {first['protocol']}, "
            f"context {first['context']}, budget {first['budget']}:\n{to_text(group)}"
        )
    return "\n\n".join(parts) or "no evaluated runs yet"


def to_tree(rows: list[dict[str, Any]]) -> str:
    """Draw which run came from which."""
    names = {row["name"] for row in rows}
    lines: list[str] = []
    drawn: set[str] = set()

    def draw(row: dict[str, Any], depth: int) -> None:
        if row["name"] in drawn:
            return
        drawn.add(row["name"])
        lines.append(f"{'  ' * depth}{row['name']}  {_cell(row['bits_per_byte'])}")
        for child in rows:
            if child["parent"] == row["name"]:
                draw(child, depth + 1)

    roots = [row for row in rows if row["parent"] not in names or row["parent"] == row["name"]]
    for row in [*roots, *rows]:  # rows again: runs made anew from each other have no root
        draw(row, 0)
    return "\n".join(lines) or to_text(rows)


def to_csv(rows: list[dict[str, Any]]) -> str:
    """Write rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def to_json(rows: list[dict[str, Any]]) -> str:
    """Write rows as JSON."""
    return json.dumps([{name: row[name] for name in COLUMNS} for row in rows], indent=1)


FORMATS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "text": to_text,
    "json": to_json,
    "csv": to_csv,
}


def _cell(value: Any) -> str:
    """Show one value."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
