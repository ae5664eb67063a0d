"""Run notebooks with checked parameters, and watch their runs from outside."""

import ast
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from workbench.folder import (
    InputError,
    RunFolder,
    check_known,
    create_run,
    environment,
    read_json,
    replacing,
    runs_root,
    valid_name,
)

VOLATILE = ("papermill", "execution", "widgets")  # metadata that changes on every run
TYPES: dict[str, tuple[type, ...]] = {  # what an annotation of a parameter admits
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "dict": (dict,),
    "list": (list,),
    "None": (type(None),),
}


def parameters_of(notebook: Path) -> dict[str, tuple[str, Any, str]]:
    """Read the tagged parameters cell: annotation, default and help by name.

    Raises
    ------
    InputError
        If the notebook is missing, is not a notebook, or has no such cell.
    """
    try:
        content = nbformat.read(notebook, as_version=4)
    except FileNotFoundError:
        raise InputError(
            notebook,
            expected="a notebook",
            found="no file",
            remedy="Shipped ones are in notebooks/experiments/.",
        ) from None
    except Exception as error:  # nbformat raises many kinds for a file that is no notebook
        raise InputError(
            notebook, expected="a notebook", found=str(error)[:120], remedy="Check the file."
        ) from error
    tagged = [c for c in content.cells if "parameters" in c.metadata.get("tags", [])]
    if not tagged:
        raise InputError(
            notebook,
            expected="a code cell tagged 'parameters'",
            found="none",
            remedy="Tag the cell that assigns the parameters.",
        )
    try:
        return _declared(tagged[0].source)
    except (SyntaxError, ValueError) as error:
        raise InputError(
            notebook,
            expected="parameters written as  steps: int = 200  # meaning",
            found=str(error).splitlines()[0][:120],
            remedy="Mend the cell tagged 'parameters'.",
        ) from error


def _declared(source: str) -> dict[str, tuple[str, Any, str]]:
    """Read annotated assignments of literals; ValueError where one is something else."""
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            line = lines[(node.end_lineno or node.lineno) - 1].encode()  # ast counts bytes
            note = line[node.end_col_offset or 0 :].decode().partition("#")[2].strip()
            annotation = ast.unparse(node.annotation)
            if not set(_kinds(annotation)) <= set(TYPES):
                raise ValueError(f"{node.target.id}: {annotation}, not one of {', '.join(TYPES)}")
            found[node.target.id] = (annotation, ast.literal_eval(node.value), note)
    return found


def _kinds(annotation: str) -> list[str]:
    """Split ``list[int] | None`` into list and None."""
    return [part.strip() for part in re.sub(r"\[[^\[\]]*\]", "", annotation).split("|")]


class _Yaml(yaml.SafeLoader):
    """YAML, in which 1e-3 is a number at any depth; version 1.1 reads it as text."""


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def parse_parameters(notebook: Path, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Read ``-p KEY VALUE`` pairs as YAML and check them against the notebook's annotations.

    Raises
    ------
    InputError
        For an unknown key (the nearest are named) or a value of another type.
    """
    declared = parameters_of(notebook)
    values = {}
    for key, text in pairs:
        check_known([key], declared, what=f"parameter of {notebook.name}")
        try:
            value = yaml.load(text, _Yaml)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
            raise InputError(
                f"parameter {key!r}",
                expected="a YAML value",
                found=text,
                remedy=f"Quote it for the shell; {type(error).__name__}.",
            ) from error
        values[key] = _typed(key, text, value, declared[key][0])
    return values


def _typed(key: str, text: str, value: Any, annotation: str) -> Any:
    """Return the value if it fits its annotation; text stays text."""
    names = _kinds(annotation)
    if "str" in names and not (value is None and "None" in names):
        return text
    allowed = tuple(kind for name in names for kind in TYPES[name])
    if not isinstance(value, allowed) or (isinstance(value, bool) and "bool" not in names):
        raise InputError(
            f"parameter {key!r}",
            expected=annotation,
            found=repr(text),
            remedy="Values are YAML, e.g. -p steps 400 or -p model '{n_layer: 2}'.",
        )
    return value


def run_notebook(
    notebook: Path, output: Path, parameters: Mapping[str, Any], *, kernel: str = "python3"
) -> None:
    """Execute a notebook and write it with its outputs, without volatile metadata.

    When a cell fails, the notebook so far is still written, with papermill's banner. Relative
    paths among the parameters are the caller's: the kernel works where the caller does.

    Raises
    ------
    InputError
        If the notebook does not declare one of the parameters, or itself refuses its input.
    papermill.exceptions.PapermillExecutionError
        If a cell fails for another reason.
    """
    declared = parameters_of(notebook) if parameters else {}
    check_known(parameters, declared, what=f"parameter of {notebook.name}")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads starve each other
    logging.getLogger("papermill").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        executed = Path(scratch) / "executed.ipynb"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of zmq and nbformat, about ids and event loops
                papermill.execute_notebook(
                    str(notebook),
                    str(executed),
                    parameters=dict(parameters),
                    progress_bar=False,
                    kernel_name=kernel,
                    language="python",  # also where the notebook does not say so
                    extra_arguments=["--log-level=CRITICAL"],  # it warns of its own transport
                )
        finally:
            if executed.exists():
                output.parent.mkdir(parents=True, exist_ok=True)
                write_clean(executed, output)


def write_clean(executed: Path, output: Path) -> None:
    """Copy an executed notebook without volatile metadata, so that equal runs give equal files."""
    done = nbformat.read(executed, as_version=4)
    for part in (done, *done.cells):
        for key in VOLATILE:
            part.metadata.pop(key, None)
        if "injected-parameters" in part.metadata.get("tags", []):
            part.id = "parameters-of-this-run"  # papermill draws a random id
    nbformat.write(done, output)


def run_experiment(
    notebook: Path, name: str, parameters: Mapping[str, Any], *, replace: bool = False
) -> RunFolder:
    """Execute an experiment notebook as run `name`, with progress on stderr.

    A notebook with the parameter ``name`` makes the run folder itself once its input has proved
    good, so bad input leaves nothing; for any other the folder is made here. The executed notebook
    lands in that folder, also when a cell failed.

    Returns
    -------
    RunFolder
        The run's folder.
    """
    run = RunFolder(runs_root() / name)
    declared = parameters_of(notebook)
    own = {key: value for key, value in (("name", name), ("replace", replace)) if key in declared}
    if run.path.exists() and not replace:
        raise InputError(
            run.path,
            expected="a run name not yet taken",
            found="a run of that name",
            remedy="Choose another --name, or pass --replace to remove the old run first.",
        )
    record = run.path / "run.json"
    before = record.stat().st_mtime_ns if record.exists() else 0
    makes_folder = "name" in declared
    if not makes_folder:
        create_run(name, replace=replace)
        run.update(status="running", environment=environment())
    with tempfile.TemporaryDirectory() as scratch:
        executed = Path(scratch) / notebook.name
        try:
            with following(run, newer_than=before):
                _execute(notebook, executed, {**parameters, **own})
        except NotebookFailed as error:
            if not makes_folder:
                run.update(status="failed", reason=str(error))
            raise
        finally:
            if executed.exists() and record.exists() and record.stat().st_mtime_ns > before:
                with replacing(run.path / notebook.name) as beside:
                    shutil.copyfile(executed, beside)  # the scratch may be on another disk
    if not makes_folder:
        run.update(status="finished")
    return run


def run_upon(notebook: Path, run: RunFolder, parameters: Mapping[str, Any]) -> RunFolder:
    """Execute an experiment notebook about a run, and return the folder that it lands in.

    That is the run's, or that of the run ``name``, where the notebook made one.
    """
    made = RunFolder(runs_root() / valid_name(parameters.get("name") or run.name))
    into = made if parameters.get("name") else run
    record = into.path / "run.json"
    before = record.stat().st_mtime_ns if record.exists() else 0
    with tempfile.TemporaryDirectory() as scratch:
        executed = Path(scratch) / notebook.name
        try:
            with following(into, newer_than=before):
                _execute(notebook, executed, {**parameters, "run": str(run.path)})
        finally:
            if executed.exists():
                changed = record.exists() and record.stat().st_mtime_ns > before
                if changed or into is run:  # a refused branch leaves no trace
                    with replacing(into.path / notebook.name) as beside:
                        shutil.copyfile(executed, beside)
    return into


def _execute(notebook: Path, executed: Path, parameters: Mapping[str, Any]) -> None:
    """Run a notebook, turning every way to fail into `NotebookFailed`."""
    try:
        run_notebook(notebook, executed, parameters)
    except PapermillExecutionError as error:
        refused = error.ename in ("InputError", "ArchMismatch")
        where = "" if refused else f"{notebook.name}, cell {error.exec_count}: {error.ename}: "
        raise NotebookFailed(where + str(error.evalue), refused=refused) from error
    except DeadKernelError as error:
        died = f"{notebook.name}: its process was killed, perhaps for want of memory"
        raise NotebookFailed(died, refused=False) from error


class NotebookFailed(RuntimeError):
    """A cell failed; `refused` tells bad input (whose message this is) from anything else."""

    def __init__(self, message: str, *, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


@contextmanager
def following(run: RunFolder, *, newer_than: int = 0) -> Iterator[None]:
    """Show the progress of a run that another process trains, on stderr, until the block ends."""
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(run, stop, newer_than), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)


def _follow(run: RunFolder, stop: threading.Event, newer_than: int) -> None:
    """Hand each new line of the run's metrics to a progress bar until told to stop."""
    watch, done = None, 0
    while True:
        ended = stop.wait(0.5)
        record = run.path / "run.json"
        if record.exists() and record.stat().st_mtime_ns > newer_than:
            found = {} if watch else read_json(record)
            if found.get("status") == "running" and "training" in found:
                training = found["training"]
                watch = progress(training["steps"], training.get("seconds"), description=run.name)
            if watch is not None and run.metrics.exists():
                with run.metrics.open("rb") as file:
                    if run.metrics.stat().st_size < done:  # cut, to be continued
                        done = 0
                    file.seek(done)
                    new = file.read()
                whole = new[: new.rfind(b"\n") + 1]  # a line still being written waits
                done += len(whole)
                for line in whole.splitlines():
                    watch(json.loads(line))
        if ended:
            break


def progress(
    steps: int, seconds: float | None = None, *, description: str = "training"
) -> Callable[[Mapping[str, Any]], None]:
    """Return a `watch` function that draws a bar, in the terminal as in Jupyter.

    It shows loss, latest bits per byte, tokens a second and the time left.

    Parameters
    ----------
    steps : int
        Updates of the whole run.
    seconds : float, optional
        Time budget; the bar then counts seconds.
    """
    # Text, not a widget: an executed notebook would keep a widget's first state for its last. How
    # often it is redrawn is what each reader can bear: a terminal, a saved page, a log file.
    interval = 0.1 if sys.stderr.isatty() else 2.0 if "ipykernel" in sys.modules else 10.0
    unit = "s" if seconds else "step"
    bar = tqdm(total=seconds or steps, desc=description, unit=unit, mininterval=interval)
    latest = ""

    def watch(line: Mapping[str, Any]) -> None:
        nonlocal latest
        if "validation_bits_per_byte" in line:
            latest = f", bpb {line['validation_bits_per_byte']:.4f}"
        speed = line["tokens"] / max(line["seconds"], 1e-9)
        text = f"loss {line['loss']:.3f} nat/token{latest}, {speed:,.0f} token/s"
        bar.set_postfix_str(text, refresh=False)
        bar.update(round(line["seconds"], 1) - bar.n if seconds else line["step"] - bar.n)
        if line["step"] == steps or (seconds and line["seconds"] >= seconds):
            bar.close()

    return watch
