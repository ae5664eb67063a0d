"""The command line: one verb a function, each a few lines over the library.

JSON goes to stdout alone; progress and messages go to stderr. Heavy libraries are imported by the
verb that needs them, so ``--help`` and ``runs`` answer at once.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from workbench.folder import PROJECT, InputError, find_run, runs_root

RAW = argparse.RawDescriptionHelpFormatter
BAR = "{desc}: {percentage:3.0f}% |{bar}| {elapsed}<{remaining} {postfix}"
FORMATS = ("parameter-golf", "huggingface")
EXPERIMENTS = PROJECT / "notebooks" / "experiments"
UPON = {
    "resume": "go on with a stopped or killed run, or branch off one",
    "quantize": "make an artifact of few bytes of a run",
}

EPILOG = """\
first ten minutes:
  python -m workbench preflight                    what a training will take, and what is amiss
  python -m workbench train --name first           train a small model on Python's documentation
  python -m workbench evaluate first               bits per byte, with its standard error
  python -m workbench quantize first               the fewest bytes that cost 0.005 bit/byte
  python -m workbench diagnose first               probe it; writes diagnosis.nc
  python -m workbench report first                 one HTML page, to read without a network
  python -m workbench runs                         all runs
  python -m workbench import final_model.pt --from parameter-golf --name mine

Every run is a folder under data/runs/ with its executed notebook, weights, metrics and results.
"""


def run(options: argparse.Namespace) -> int:
    """Execute an experiment notebook as a run."""
    from workbench import execution
    from workbench.folder import valid_name

    notebook = Path(options.notebook)
    parameters = execution.parse_parameters(notebook, [tuple(pair) for pair in options.parameter])
    if "run" in execution.parameters_of(notebook):
        return _upon(notebook, parameters)
    given = parameters.pop("name", ""), parameters.pop("replace", False)  # -p name says the same
    name = valid_name(options.name or given[0] or _free_name(notebook.stem))
    replace = options.replace or given[1]
    try:
        done = execution.run_experiment(notebook, name, parameters, replace=replace)
    except execution.NotebookFailed as error:
        return _fail(str(error), code=2 if error.refused else 1)
    if (done.path / "run.json").exists():
        record = done.record()
        _say(f"run {done.name}: {record['status']}, in {done.path}")
        imported, start = record.get("imported", {}), record.get("start", {})
        if imported:
            _say(imported["verdict"])
            _say(f"assumed: {', '.join(imported['assumed']) or 'nothing'}")
            _say(f"embedding rows without a token: {imported['rows_without_token']:,}")
        if record.get("parent") and start:
            _say(
                f"began at {start['bits_per_byte']:.4f} bit/byte on this text: {start['diagnosis']}"
            )
    return 0


def _upon(notebook: Path, parameters: dict[str, Any]) -> int:
    """Execute a notebook that is about a finished run, and say what it left in the record."""
    from workbench import execution

    about = find_run(parameters.pop("run", ""))
    before = about.record()
    try:
        into = execution.run_upon(notebook, about, parameters)
    except execution.NotebookFailed as error:
        return _fail(str(error), code=2 if error.refused else 1)
    record = into.record()
    _say(f"run {into.name}: {record['status']}, executed {into.path / notebook.name}")
    made = record.get("artifacts", {}).get(record.get("artifact"))
    if made and record != before:
        _say(made["verdict"])
    return 0


def preflight(options: argparse.Namespace) -> int:
    """Forecast what `train` with the same parameters would cost; 1 where an error stands."""
    from workbench import execution

    notebook = Path(options.notebook)
    given = {name: default for name, (_, default, _) in execution.parameters_of(notebook).items()}
    given |= execution.parse_parameters(notebook, [tuple(pair) for pair in options.parameter])
    os.environ["OMP_NUM_THREADS"] = str(max(given["threads"], 1))  # read when torch is imported
    from workbench import diagnostics, readings

    groups = diagnostics.preflight_of(given, seconds=0.0 if options.no_calibration else 1.5)
    if options.format == "json":
        print(json.dumps({name: ds.to_dict("list") for name, ds in groups.items()}, indent=1))
    else:
        print(*(f"{name}: {readings.reading(name, groups[name])}" for name in groups), sep="\n")
    return int("error" in groups["checks"].level.values)


def upon(options: argparse.Namespace) -> int:
    """Go on with a run, or make an artifact of it: `run` with the notebook for it."""
    options.parameter += [("run", options.run)]
    return run(options)


def import_(options: argparse.Namespace) -> int:
    """Make a run of a checkpoint: `run` with the notebook for it."""
    options.parameter += [("path", options.path), ("format", options.format)]
    return run(options)


def export(options: argparse.Namespace) -> int:
    """Write the weights of a run for another program; print the files and their bytes."""
    from workbench import evaluation, foreign

    opened = evaluation.open_run(options.run)
    folder = Path(options.output or opened.folder.path / "exports" / options.to)
    told: dict[str, Any] = {"sequence_length": opened.sequence_length}
    if options.to == "parameter-golf":
        code = Path(options.code) if options.code else None
        written = foreign.write_parameter_golf(opened.model, folder, code=code, **told)
    else:
        ids = opened.folder.record().get("imported", {}).get("special_ids")
        told |= {"tokenizer": opened.tokenizer, "special_ids": ids}
        foreign.write_huggingface(opened.model, folder, **told)
        written = {"files": {each.name: each.stat().st_size for each in sorted(folder.iterdir())}}
    print(json.dumps({"format": options.to, "folder": str(folder), **written}, indent=1))
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Score validation text."""
    from tqdm import tqdm

    from workbench import evaluation, quantization, readings

    opened = evaluation.open_run(options.run)
    how: dict[str, Any] = {"corpus": options.corpus, "protocol": options.protocol}
    with tqdm(desc="scoring", unit="token", leave=False, disable=None) as bar:
        how["watch"] = lambda done: bar.update(done - bar.n)
        if options.artifact is None:
            summary, table = evaluation.evaluate(opened, **how)
        else:
            summary, table = quantization.evaluate_artifact(opened, options.artifact, **how)
    if options.artifact is None and options.corpus is None and options.protocol == "full":
        evaluation.save_evaluation(opened, summary, table)
    said = readings.evaluation(summary)
    print(json.dumps(summary, indent=1) if options.format == "json" else said)
    return 0


def diagnose(options: argparse.Namespace) -> int:
    """Probe a run and say what was found."""
    from tqdm import tqdm

    from workbench import diagnostics, evaluation, readings, result

    if options.tokens is not None and options.tokens < 1:
        return _fail(f"--tokens: expected 1 or more, found {options.tokens}")
    opened = evaluation.open_run(options.run)
    only = [name.strip() for name in options.only.split(",")] if options.only else None
    with tqdm(desc="probing", total=1, leave=False, disable=None, bar_format=BAR) as bar:

        def watch(name: str, done: float) -> None:
            bar.set_postfix_str(name, refresh=False)
            bar.update(done - bar.n)

        groups = diagnostics.diagnose(
            opened, options.corpus, tokens=options.tokens, only=only, watch=watch
        )
    path = diagnostics.save_diagnosis(opened, groups, corpus=options.corpus)
    for name, dataset in groups.items():
        print(f"{name}: {readings.reading(name, dataset)}")
    if opened.folder.is_stale():
        _say(f"the weights changed since they were scored: evaluate {options.run} again")
    for name, reason in result.provenance(result.open_tree(path)).get("absent", {}).items():
        _say(f"left out: {name}: {reason}")
    _say(f"written: {path}")
    failed = groups.get("self_test")
    return 0 if failed is None or bool(failed.passed.all()) else 1


def generate(options: argparse.Namespace) -> int:
    """Continue a prompt."""
    from workbench import evaluation

    opened = evaluation.open_run(options.run)
    text = evaluation.generate(
        opened.model,
        opened.tokenizer,
        options.prompt,
        n_token=options.tokens,
        sequence_length=opened.sequence_length,
        temperature=options.temperature,
        top_k=options.top_k,
        seed=options.seed,
    )
    print(options.prompt + text)
    return 0


def report(options: argparse.Namespace) -> int:
    """Write one HTML page about one or more runs."""
    from workbench.plots import report as page

    folders = [find_run(name) for name in options.run]
    output = Path(options.output or folders[0].path)
    if output.is_dir():
        output = output / "report.html"
    page.write_report(folders, output)
    _say(f"written: {output} ({output.stat().st_size / 1e6:.1f} MB)")
    return 0


def runs(options: argparse.Namespace) -> int:
    """List runs."""
    from workbench import runs as registry

    rows = registry.list_runs()
    if options.tree and options.format != "text":
        return _fail("--tree is drawn as text; the parents stand in --format json and csv too")
    if options.tree:
        print(registry.to_tree(rows))
    elif options.leaderboard and options.format == "text":
        print(registry.to_leaderboard(rows))
    else:
        if options.leaderboard:
            rows = [row for group in registry.leaderboard(rows) for row in group]
        print(registry.FORMATS[options.format](rows))
    return 0


def _free_name(stem: str) -> str:
    """Return the first of stem-1, stem-2, ... that no run has."""
    number = 1
    while (runs_root() / f"{stem}-{number}").exists():
        number += 1
    return f"{stem}-{number}"


def _say(message: str) -> None:
    """Write a message where it does not mix with results."""
    print(message, file=sys.stderr)


def _fail(message: str, code: int = 2) -> int:
    """Say what went wrong and return the exit status."""
    _say("error: " + " ".join(message.splitlines()))
    return code


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    top = argparse.ArgumentParser(
        prog="python -m workbench",
        description="Train, evaluate and diagnose small language models.",
        epilog=EPILOG,
        formatter_class=RAW,
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    _experiments(verbs)
    _judgements(verbs)
    _records(verbs)
    return top


def _verb(verbs: Any, name: str, action: Any, about: str, **extra: Any) -> argparse.ArgumentParser:
    """Add one verb."""
    made: argparse.ArgumentParser = verbs.add_parser(
        name, help=about, description=about, formatter_class=RAW, **extra
    )
    made.set_defaults(action=action)
    return made


def _experiments(verbs: Any) -> None:
    """Add the verbs that make runs."""
    made = _verb(verbs, "run", run, "execute an experiment notebook as a run")
    made.add_argument("notebook", help="path of a notebook with a tagged parameters cell")
    about = "train a model: run notebooks/experiments/train.ipynb"
    notebook = EXPERIMENTS / "train.ipynb"
    epilog = TRAIN_EPILOG.format(_parameters_cell(notebook))
    train = _verb(verbs, "train", run, about, epilog=epilog)
    train.set_defaults(notebook=str(notebook))
    about = "forecast the parameters, memory, bytes and time of a training, and judge them"
    ahead = _verb(verbs, "preflight", preflight, about, epilog=_parameters_cell(notebook))
    ahead.set_defaults(notebook=str(notebook))
    ahead.add_argument("--format", choices=("text", "json"), default="text")
    ahead.add_argument("--no-calibration", action="store_true", help="take no step: no time")
    notebook = EXPERIMENTS / "import.ipynb"
    about = "make a run of a checkpoint trained elsewhere: run notebooks/experiments/import.ipynb"
    adopt = _verb(verbs, "import", import_, about, epilog=_parameters_cell(notebook))
    adopt.add_argument("path", help="weights file, or a Hugging Face folder")
    adopt.add_argument("--from", dest="format", choices=FORMATS, default="", help="by its name")
    adopt.set_defaults(notebook=str(notebook))
    for each in (made, train, adopt):
        each.add_argument("--name", help="name of the run; by default the notebook's and a number")
        each.add_argument("--replace", action="store_true", help="remove a run of that name first")
    verbs_upon = []
    for name, told in UPON.items():
        notebook = EXPERIMENTS / f"{name}.ipynb"
        about = f"{told}: run notebooks/experiments/{name}.ipynb"
        verbs_upon.append(_verb(verbs, name, upon, about, epilog=_parameters_cell(notebook)))
        verbs_upon[-1].add_argument("run", help="name of a run, or its folder")
        verbs_upon[-1].set_defaults(notebook=str(notebook), name=None, replace=False)
    pairs: dict[str, Any] = {"nargs": 2, "action": "append", "metavar": ("KEY", "VALUE")}
    for each in (made, train, ahead, adopt, *verbs_upon):
        told = "a parameter of the notebook, as YAML"
        each.add_argument("-p", "--parameter", **pairs, default=[], help=told)


def _judgements(verbs: Any) -> None:
    """Add the verbs that open a run's model."""
    made = _verb(verbs, "evaluate", evaluate, "bits per byte of a run, with its standard error")
    made.add_argument("run", help="name of a run, or its folder")
    made.add_argument("--corpus", help="another corpus: a known name or a path")
    about = "full (default): windows side by side; sliding:N: one every N tokens; ttt, ttt:lora: "
    about += "learn from what was scored; set chunk, lr, epochs, rows, stride or rank: ttt:lr=0.01"
    made.add_argument("--protocol", default="full", help=about)
    about = "judge an artifact of the run in its place: NAME, or the one made last"
    made.add_argument("--artifact", nargs="?", const="", metavar="NAME", help=about)
    made.add_argument("--format", choices=("text", "json"), default="text")

    made = _verb(verbs, "diagnose", diagnose, "probe a run: writes diagnosis.nc, prints a summary")
    made.add_argument("run", help="name of a run, or its folder")
    made.add_argument("--corpus", help="another corpus: a known name or a path")
    made.add_argument("--tokens", type=int, help="score about this many (default: all)")
    made.add_argument("--only", help="names, with commas: self_test, token_loss, ...")

    made = _verb(verbs, "generate", generate, "continue a prompt")
    made.add_argument("run", help="name of a run, or its folder")
    made.add_argument("--prompt", required=True)
    made.add_argument("--tokens", type=int, default=64, help="how many tokens at most")
    made.add_argument("--temperature", type=float, default=0.0, help="0 (default): greedy")
    made.add_argument("--top-k", type=int, help="draw among the K most probable only")
    made.add_argument("--seed", type=int, default=0, help="of the draws")

    made = _verb(verbs, "export", export, "write a run's weights for another program")
    made.add_argument("run", help="name of a run, or its folder")
    made.add_argument("--to", required=True, choices=FORMATS)
    made.add_argument("--output", metavar="FOLDER", help="default: exports/FORMAT in the run")
    made.add_argument("--code", metavar="FILE", help="script that counts towards a submission")


def _records(verbs: Any) -> None:
    """Add the verbs that read what runs have left."""
    made = _verb(verbs, "report", report, "one self-contained HTML page about one or more runs")
    made.add_argument("run", nargs="+", help="names of diagnosed runs")
    made.add_argument("--output", metavar="FILE.html", help="default: report.html in the run")

    made = _verb(verbs, "runs", runs, "list runs")
    made.add_argument("--tree", action="store_true", help="draw which run came from which")
    made.add_argument("--leaderboard", action="store_true", help="rank runs that may be compared")
    made.add_argument("--format", choices=("text", "json", "csv"), default="text")


PARAMETERS = "parameters, with type, default and meaning; set one with -p NAME VALUE:\n{}\n"
TRAIN_EPILOG = """\
{}
examples:
  python -m workbench train --name small -p steps 100 -p corpus path/to/text.txt
  python -m workbench train --name wide -p model '{{d_model: 256, n_head: 8}}'
  python -m workbench train --name timed -p seconds 600 -p steps 20000 -p warmdown_steps 1200
"""


def _parameters_cell(notebook: Path) -> str:
    """Return the source of a notebook's parameters cell, indented; it documents itself."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    return PARAMETERS.format("".join(f"  {line}" for line in tagged[0]["source"]))


def main(arguments: list[str] | None = None) -> int:
    """Parse and act; bad input is one line on stderr and exit status 2."""
    options = parser().parse_args(arguments)
    try:
        return int(options.action(options))
    except InputError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        kept = "; the weights so far are kept in its folder" if options.action is run else ""
        return _fail(f"interrupted{kept}", code=130)
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        sys.stdout = None
        return 0


if __name__ == "__main__":
    sys.exit(main())
