"""The report of runs: their saved diagnoses as one page."""

import inspect
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import xarray as xr

from workbench import plots, readings
from workbench.folder import InputError, RunFolder, read_jsonl, replacing
from workbench.plots.page import Part, Section, page
from workbench.result import open_tree, provenance

_TOLD = tomllib.loads(files("workbench.plots").joinpath("report.toml").read_text(encoding="utf-8"))
HEADINGS = {name: each["heading"] for name, each in _TOLD.items()}  # in the order of a report
HOW_TO_READ = {name: " ".join(each["how_to_read"].split()) for name, each in _TOLD.items()}


def write_report(runs: Sequence[RunFolder], output: Path) -> None:
    """Write the page of one or more diagnosed runs.

    Raises
    ------
    InputError
        If a run has no diagnosis yet.
    """
    parts = [_part(run) for run in runs]
    title = "Diagnosis of " + " and ".join(run.name for run in runs)
    with replacing(output) as scratch:
        scratch.write_text(page(title, parts, note=_note(runs)), encoding="utf-8")


def _part(run: RunFolder) -> Part:
    """Make the part of one run."""
    tree = open_diagnosis(run)
    record = run.record()
    metrics = read_jsonl(run.metrics)
    sections = []
    if metrics:
        sections.append(
            Section(
                heading="Training",
                lead=readings.training(metrics),
                figure=plots.training(metrics),
                how_to_read="Loss of each step, validation where it was taken, and the learning "
                "rate over its full value. The rate should reach zero where the run ends.",
            )
        )
    for name in dict.fromkeys([*HEADINGS, *tree.children]):
        if name in tree.children and name in plots.__all__:  # what has a figure of its name
            dataset, draw = tree[name].to_dataset(), getattr(plots, name)
            told = (inspect.getdoc(draw) or "").partition("\n\nParameters\n")[0]
            sections.append(
                Section(
                    heading=HEADINGS.get(name, name.replace("_", " ").capitalize()),
                    lead=readings.reading(name, dataset),
                    figure=draw(dataset),
                    how_to_read=HOW_TO_READ.get(name, " ".join(told.split())),
                )
            )
    tested = tree.children.get("self_test")
    lead = readings.self_test(tested.to_dataset()) if tested is not None else ""
    limits = {node.attrs.get("measured_tokens", "all") for node in tree.children.values()}
    facts = run_facts(record)
    if limits != {"all"}:
        facts["probes measured on"] = "tokens: " + ", ".join(sorted(limits))
    return Part(heading=run.name, lead=lead, facts=facts, sections=sections)


def open_diagnosis(run: RunFolder) -> xr.DataTree:
    """Read the diagnosis of a run.

    Raises
    ------
    InputError
        If it has none, its file is damaged, or it was measured on other weights.
    """
    path = run.path / "diagnosis.nc"
    try:
        tree = open_tree(path)
    except OSError as error:
        remedy = f"Make it: python -m workbench diagnose {run.name}."
        if not (run.path / "model.safetensors").exists():
            remedy = f"The run has no weights (status {run.record()['status']}): train it first."
        wanted = "the saved diagnosis of this run"
        found = "a damaged file" if path.exists() else "no file"
        raise InputError(path, expected=wanted, found=found, remedy=remedy) from error
    if provenance(tree).get("weights") not in (None, run.weights()):
        wanted, found = "a diagnosis of the weights that this run has", "one of other weights"
        remedy = f"Measure again: python -m workbench diagnose {run.name}."
        raise InputError(path, expected=wanted, found=found, remedy=remedy)
    return tree


def run_facts(record: Mapping[str, Any]) -> dict[str, object]:
    """Pick the numbers a reader asks for first."""
    judged = record.get("evaluation") or {}
    data = record.get("data") or {}
    config = record.get("model") or {}
    facts: dict[str, object] = {"status": record.get("status", "unknown")}
    if judged:
        error = judged.get("standard_error")
        spread = f" +- {error:.4f}" if error is not None else ""
        facts["bits per byte"] = f"{judged['bits_per_byte']:.4f}{spread}"
        facts["protocol"] = f"{judged['protocol']}, context {judged['context']}"
        facts["scored"] = f"{judged['tokens']:,} tokens, {independent(judged)}"
    facts["parameters"] = f"{record.get('parameters', 0):,}"
    facts["network"] = f"{config.get('n_layer')} blocks of width {config.get('d_model')}"
    facts["steps"] = record.get("steps_done", "unknown")
    facts["corpus"] = f"{data.get('name')} ({str(data.get('corpus_hash'))[:12]})"
    return facts


def independent(judged: Mapping[str, Any]) -> str:
    """Name the independent observations behind a standard error."""
    documents, groups = judged["documents"], judged.get("groups", judged["documents"])
    return f"{documents} documents" if groups == documents else f"{groups} facts"


def _note(runs: Sequence[RunFolder]) -> str:
    """Say what the page rests on."""
    places = {run.name: run.record().get("environment", {}) for run in runs}
    made = "; ".join(
        f"{name}: torch {place.get('packages', {}).get('torch')}, code {place.get('code')}"
        for name, place in places.items()
    )
    return (
        f"{made}. Standard errors are over documents, or the facts of a closed world; another "
        "training seed moves the numbers too. Nothing on this page is loaded from a network."
    )
