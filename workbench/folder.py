"""Paths, names, atomic writes, JSON and hashes: the run folder, with the standard library alone.

A *run* is a folder under ``data/runs``. Files in it are replaced by rename or appended and
flushed, so a kill at any moment leaves either the old file or the new one, never half of one.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

Made = TypeVar("Made")
PROJECT = Path(__file__).resolve().parents[1]
SCHEMA_VERSION = 1
FEW = 8  # choices are listed whole
STATUSES = ("planned", "running", "finished", "failed", "stopped")
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


class InputError(ValueError):
    """Bad input from outside: which file, what was expected, what was found, what to do.

    Parameters
    ----------
    where : str or Path
        File, folder, parameter or name that is at fault.
    expected, found, remedy : str
        One short clause each.
    """

    def __init__(self, where: object, *, expected: str, found: str, remedy: str) -> None:
        self.where, self.expected, self.found, self.remedy = str(where), expected, found, remedy
        super().__init__(f"{where}: expected {expected}; found {found}. {remedy}")


def data_root() -> Path:
    """Return where corpora, tokenizers and runs live: ``WORKBENCH_DATA`` or the project's data/."""
    return Path(os.environ.get("WORKBENCH_DATA", PROJECT / "data"))


def runs_root() -> Path:
    """Return the folder that holds one folder a run."""
    return data_root() / "runs"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a scratch path beside `path`; rename it into place on success, remove it on failure.

    Examples
    --------
    >>> target = Path(tempfile.mkdtemp()) / "numbers.txt"
    >>> with replacing(target) as scratch:
    ...     _ = scratch.write_text("1 2 3")
    >>> target.read_text()
    '1 2 3'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept because several libraries choose the format by it.
    scratch = path.with_name(f".{path.stem}-{os.getpid()}-{time.monotonic_ns()}{path.suffix}")
    try:
        yield scratch
        scratch.chmod(0o644)  # some libraries make files that only their owner may read
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON; NaN is refused, since JSON has none."""
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read one JSON file, naming the file when it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        remedy = "Check the path or the run name."
        raise InputError(path, expected="a JSON file", found="no file", remedy=remedy) from None
    except (ValueError, RecursionError) as error:
        remedy = "Restore or remove the file."
        raise InputError(path, expected="valid JSON", found=str(error), remedy=remedy) from None


def append_jsonl(path: Path, value: Mapping[str, Any]) -> None:
    """Append one line and flush it, so that a killed run keeps every step before the kill."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value, allow_nan=False) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read every whole line; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    whole = lines[:-1]  # what follows the last newline was never finished
    values = []
    for number, line in enumerate(whole, start=1):
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError as error:
            wanted, found = "one JSON object a line", f"line {number}: {error}"
            remedy = "Restore the file, or remove that line."
            raise InputError(path, expected=wanted, found=found, remedy=remedy) from None
    return values


def digest(*parts: bytes | str) -> str:
    """Hash parts to 64 hexadecimal characters (SHA-256), each part delimited by its length."""
    state = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8") if isinstance(part, str) else part
        state.update(len(raw).to_bytes(8, "little"))
        state.update(raw)
    return state.hexdigest()


def nearest(word: str, choices: list[str]) -> str:
    """Phrase the nearest valid choices for an error message."""
    import difflib

    close = difflib.get_close_matches(word, choices, n=3, cutoff=0.4)
    return f"Nearest: {', '.join(close)}." if close else f"Choose from: {', '.join(choices)}."


def check_known(names: Iterable[Any], known: Iterable[str], *, what: str) -> None:
    """Refuse the first name that is none of the known ones, and tell the nearest of these."""
    choices = list(known)
    for name in names:
        if name not in choices:
            where, remedy = f"{what} {name!r}", nearest(str(name), choices)
            wanted = ", ".join(choices) if len(choices) <= FEW else f"a known {what}"
            raise InputError(where, expected=wanted, found=repr(name), remedy=remedy)


def made(kind: type[Made], settings: Mapping[str, Any], *, what: str) -> Made:
    """Make a small configuration, a dataclass, from the plain values of its fields."""
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    given = settings if isinstance(settings, Mapping) else {str(settings): settings}
    check_known(given, known, what=f"{what} key")
    try:
        return kind(**settings)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        wanted, remedy = f"fields {', '.join(known)}", "Change the value."
        raise InputError(what, expected=wanted, found=str(error), remedy=remedy) from error


def valid_name(name: str) -> str:
    """Return `name`, or refuse what could leave its folder or confuse a shell."""
    if not NAME_PATTERN.fullmatch(name) or ".." in name:
        wanted = "1 to 80 letters, digits, '.', '_' or '-', beginning with a letter or digit"
        remedy = "Choose another name."
        raise InputError(f"name {name!r}", expected=wanted, found=repr(name), remedy=remedy)
    return name


def environment() -> dict[str, Any]:
    """Describe where a run happens: machine, interpreter, package versions, code version."""
    versions = {}
    for package in ("torch", "numpy", "xarray", "sentencepiece", "papermill", "plotly"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "boot": _boot(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "python": sys.version.split()[0],
        "packages": versions,
        "code": code_version(),
    }


def code_version() -> str:
    """Return the commit of the source tree, with ``+`` where files differ from it."""
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


@dataclass(frozen=True)
class RunFolder:
    """One run's folder: where its files are, and how its record is read and changed."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return self.path.name

    def weights(self) -> str | None:
        """Return the SHA-256 of the run's weights, or None where it has none yet."""
        path = self.path / "model.safetensors"
        if not path.exists():
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def is_stale(self) -> bool:
        """Tell whether the weights were changed after the recorded score was measured."""
        scored = (self.record().get("evaluation") or {}).get("weights")
        return scored is not None and scored != self.weights()

    @property
    def metrics(self) -> Path:
        """``metrics.jsonl``: one line a step."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of kept checkpoints, ``step-000050.safetensors`` and so on."""
        return self.path / "checkpoints"

    @property
    def states(self) -> Path:
        """Folder of what each kept checkpoint needs beside its weights, to go on from it."""
        return self.path / "states"

    def request_stop(self) -> None:
        """Ask the process that trains this run, whichever it is, to stop after its step."""
        (self.path / "stop").touch()

    def withdraw_stop(self) -> None:
        """Take a request back."""
        (self.path / "stop").unlink(missing_ok=True)

    def asked_to_stop(self) -> bool:
        """Tell whether somebody has asked."""
        return (self.path / "stop").exists()

    def record(self) -> dict[str, Any]:
        """Read ``run.json``; a run whose process is gone reads ``crashed`` instead of running."""
        record: dict[str, Any] = read_json(self.path / "run.json")
        if not isinstance(record, dict):
            where, found = self.path / "run.json", type(record).__name__
            remedy = "Restore the file, or remove the run."
            raise InputError(where, expected="a JSON object", found=found, remedy=remedy)
        if record.get("status") == "running" and not _is_alive(record.get("environment", {})):
            record["status"] = "crashed"
        return record

    def update(self, **fields: Any) -> None:
        """Change fields of ``run.json`` in one replacement."""
        if fields.get("status", "running") not in STATUSES:
            raise ValueError(f"status {fields['status']!r} is not one of {STATUSES}")
        path = self.path / "run.json"
        write_json(path, {**(read_json(path) if path.exists() else {}), **fields})


def _boot() -> str | None:
    """Identify this start of the machine, where the system tells."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else None


def _is_alive(process: Mapping[str, Any]) -> bool:
    """Tell whether the process that wrote the record still runs (only knowable on its host)."""
    if process.get("host") != socket.gethostname():
        return True
    if process.get("boot", _boot()) != _boot():
        return False
    try:
        os.kill(int(process["pid"]), 0)
    except (KeyError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def create_run(name: str, *, replace: bool = False, root: Path | None = None) -> RunFolder:
    """Make an empty run folder with status planned.

    Raises
    ------
    InputError
        If the name is not valid, or is taken and `replace` is not set.
    """
    path = (root or runs_root()) / valid_name(name)
    if path.exists():
        if not replace:
            wanted, found = "a run name not yet taken", "a run of that name"
            remedy = "Choose another name, or pass --replace to remove the old run first."
            raise InputError(path, expected=wanted, found=found, remedy=remedy)
        _discard(path)
    path.mkdir(parents=True)
    run = RunFolder(path)
    run.update(schema_version=SCHEMA_VERSION, name=name, status="planned")
    return run


def _discard(path: Path) -> None:
    """Remove a run by rename first, so that no reader sees half of it."""
    if not (path / "run.json").exists():
        wanted, found = "a run folder (with run.json)", "some other folder"
        remedy = "Only runs are replaced; move this folder away by hand."
        raise InputError(path, expected=wanted, found=found, remedy=remedy)
    doomed = Path(tempfile.mkdtemp(dir=path.parent, prefix=".removed-"))
    os.replace(path, doomed / path.name)
    shutil.rmtree(doomed)


def find_run(name: str | Path, *, root: Path | None = None) -> RunFolder:
    """Find a run by name or by the path of its folder.

    Raises
    ------
    InputError
        If there is none; the nearest names are listed.
    """
    direct = Path(name)
    if (direct / "run.json").exists():
        return RunFolder(direct.resolve())
    base = root or runs_root()
    path = base / valid_name(str(name))
    if not (path / "run.json").exists():
        known = sorted(each.parent.name for each in base.glob("*/run.json"))
        where, wanted, found = f"run {str(name)!r}", f"a run under {base}", "none of that name"
        remedy = nearest(str(name), known) if known else "Train one: python -m workbench train."
        raise InputError(where, expected=wanted, found=found, remedy=remedy)
    return RunFolder(path)
