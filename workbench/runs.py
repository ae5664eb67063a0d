"""The registry: what runs there are, what they came from, and which of them may be compared.

It reads folders and nothing else, so listing runs needs no numeric library.
"""

import csv
import io
import json
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workbench.folder import InputError, RunFolder, read_jsonl, runs_root

BOUNDS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
COMPARABLE = ("corpus_hash", "protocol", "context")  # numbers mean the same only within these
EVALUATED = ("bits_per_byte", "standard_error", *COMPARABLE)
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
    known = {name: record.get(name) for name in COLUMNS}
    known |= {name: evaluation.get(name) for name in EVALUATED}
    artifact = (record.get("artifacts") or {}).get(record.get("artifact")) or {}
    known["artifact_bytes"] = artifact.get("bytes")
    known["bits_per_byte_quantized"] = artifact.get("bits_per_byte")
    return known | {"name": run.name, "steps": record.get("steps_done"), "budget": _budget(record)}


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
    after = f", after {origin}" if origin else ""
    return f"{extent}, {training.get('tokens_per_step')} tokens each{after}"


def list_checkpoints(root: Path | None = None) -> list[dict[str, Any]]:
    """Gather what is known of every checkpoint: a row for each run and step.

    Steps are those that the saved diagnosis followed, and the last. A row holds the numbers that
    were logged at its step, the saved variables over ``step`` alone as ``group.variable``, and
    that of the evaluation at the last step. Every row says what its run was evaluated on:
    ``corpus_hash, protocol, context, budget``, None without an evaluation.
    """
    from workbench import result  # xarray, only once it is needed

    rows = []
    for summary in list_runs(root):
        run = RunFolder((root or runs_root()) / summary["name"])
        found: dict[int, dict[str, Any]] = {}
        if (run.path / "diagnosis.nc").exists():
            for group, node in result.open_tree(run.path / "diagnosis.nc").children.items():
                for name, series in node.data_vars.items():
                    if series.dims == ("step",):
                        for step, value in zip(series.step.values, series.values, strict=True):
                            found.setdefault(int(step), {})[f"{group}.{name}"] = float(value)
        if summary.get("steps"):
            known = found.setdefault(summary["steps"], {})
            known |= {"bits_per_byte": summary["bits_per_byte"]}
        logged = {line["step"]: line for line in read_jsonl(run.metrics)}
        shared = {name: summary.get(name) for name in (*COMPARABLE, "budget")}
        rows += [
            {**logged.get(step, {}), **found[step], **shared, "run": run.name, "step": step}
            for step in sorted(found)
        ]
    return rows


def select_checkpoint(
    constraints: Sequence[str], rank_by: str = "", *, rows: Sequence[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Choose a checkpoint: it must satisfy every constraint before it is ranked at all.

    Nothing is chosen between checkpoints that satisfy but differ in corpus, protocol or context,
    or whose corpus is unknown; budgets may differ, which the verdict says.

    Parameters
    ----------
    constraints : sequence of str
        Such as ``"routing_audit.owned_by_step_min >= 1"`` or ``"validation_bits_per_byte < 2"``.
        What was not measured does not satisfy.
    rank_by : str, optional
        Of those that satisfy, the least is chosen; with a leading ``-`` the largest.
    rows : sequence of dict, optional
        By default `list_checkpoints`.

    Returns
    -------
    dict
        ``chosen``, a row or None; ``verdict``, why; ``rows``, each with what it is ``failing``,
        those that fail least first.

    Raises
    ------
    InputError
        If a constraint cannot be read.
    """
    bounds = {text: _bound(text) for text in constraints}
    judged = [
        {**row, "failing": [text for text, holds in bounds.items() if not holds(row)]}
        for row in (list_checkpoints() if rows is None else rows)
    ]
    name, sign = rank_by.removeprefix("-"), -1 if rank_by.startswith("-") else 1

    def order(row: dict[str, Any]) -> tuple[int, float]:
        value = row.get(name)
        known = value is not None and value == value  # NaN is not
        return len(row["failing"]), sign * float(value or 0.0) if known else float("inf")

    judged.sort(key=order)
    passing = [row for row in judged if not row["failing"]]
    ranked = [row for row in passing if order(row)[1] < float("inf")]
    found: dict[str, Any] = {"chosen": None, "rows": judged}
    if not bounds:
        return found | {"verdict": "no constraint was given, so nothing is chosen"}
    if not passing:
        return found | {"verdict": f"none of {len(judged)} checkpoints satisfies every constraint"}
    mixed, note = _mixed(passing)
    unranked = "" if ranked else f", none can be ranked by {rank_by!r}"
    verdict = (
        f"{len(passing)} of {len(judged)} checkpoints satisfy every constraint{unranked}{note}"
    )
    return found | {"chosen": ranked[0] if ranked and not mixed else None, "verdict": verdict}


def _mixed(rows: list[dict[str, Any]]) -> tuple[bool, str]:
    """Tell whether rows must not be ranked together, and what there is to say of that."""
    groups: dict[tuple[str, Any], set[str]] = {}
    for row in rows:
        # Of what was never evaluated nothing is known: it is like itself alone.
        alone = row.get("run") if row.get("corpus_hash") is None else None
        groups.setdefault((_setting(row), alone), set()).add(str(row.get("run")))
    if len(groups) > 1:
        told = "; ".join(
            f"{setting}: {', '.join(sorted(names))}" for (setting, _), names in groups.items()
        )
        first = sorted(next(iter(groups.values())))
        return True, (
            f", but nothing is chosen, for there is no order between corpora, protocols or "
            f"contexts: {told}. Keep one group, such as "
            f"rows=[row for row in runs.list_checkpoints() if row['run'] in {first}]"
        )
    budgets = sorted({str(row.get("budget")) for row in rows})
    if len(budgets) == 1:
        return False, ""
    return False, (
        f"; their budgets differ ({'; '.join(budgets)}): this chooses weights, and says nothing of "
        f"which training is better"
    )


def _setting(row: dict[str, Any]) -> str:
    """Say on what a row was evaluated."""
    corpus, protocol, context = (row.get(name) for name in COMPARABLE)
    return f"corpus {str(corpus)[:12]}, protocol {protocol}, context {context}"


def _bound(text: str) -> Callable[[dict[str, Any]], bool]:
    """Read a constraint as a test of a row."""
    try:
        name, sign, limit = text.split()
        test, number = BOUNDS[sign], float(limit)
    except (ValueError, KeyError):
        wanted = f"a name, one of {' '.join(BOUNDS)}, and a number"
        remedy = "Write for instance 'bits_per_byte <= 2.1'."
        raise InputError("constraint", expected=wanted, found=repr(text), remedy=remedy) from None
    return lambda row: row.get(name) is not None and bool(test(row[name], number))


def leaderboard(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rank evaluated runs within groups that may be compared, best first.

    A group shares protocol, corpus, context and budget; between groups there is no order.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["bits_per_byte"] is not None:
            key = tuple(row[name] for name in (*COMPARABLE, "budget"))
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
    parts = [
        f"{_setting(group[0])}, budget {group[0]['budget']}:\n{to_text(group)}"
        for group in leaderboard(rows)
    ]
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
