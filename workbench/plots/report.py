"""The report of runs: their saved diagnoses as one page."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from workbench import plots, readings
from workbench.folder import InputError, RunFolder, read_jsonl, replacing
from workbench.plots.page import Part, Section, page
from workbench.result import open_tree, provenance

HEADINGS = {
    "effective_rank": "Effective rank",
    "value_residual": "Value-residual alphas",
    "logit_prior": "Logit prior",
    "routing_audit": "Routing audit",
    "token_loss": "Loss by token class",
}
HOW_TO_READ = {
    "effective_rank": (
        "Each cell is the effective rank of one weight matrix over that of a random matrix of the "
        "same shape. Well below 1, the matrix uses few directions and could be factored; that "
        "says nothing yet about whether the network needs them. Near 1, training has left the "
        "spectrum as flat as chance."
    ),
    "value_residual": (
        "The mix is how much of the first value each visit adds to its own, followed over the "
        "kept checkpoints. The projection says how much of the mixed value that is, with its "
        "sign. Setting a mix to zero in a trained model overstates what a model trained without "
        "it would lose."
    ),
    "logit_prior": (
        "The margin of the predicted token over its rival, before the softcap, is a sum: output "
        "bias, mean hidden state (the prior) and what this context adds. A verdict other than "
        "context means that the winner would lose without a part that no prompt can change. This "
        "is attribution with the norm held fixed, not a causal claim."
    ),
    "routing_audit": (
        "Each profile climbs a ladder of checks and stops at the first that is red, since a fault "
        "hides those behind it. The context comes first: where the prompt does not reach the "
        "model, the model is not to blame. A target is owned when some record that asks for it "
        "gets it, and merely covered when it appears anywhere in the profile."
    ),
    "token_loss": (
        "The classes split the bits per byte exactly: their contributions sum to the total. The "
        "excess over counting is what the text's own repetition would have told; in all it is "
        "recoverable, by class it says where it fell. Intervals are over documents, or over "
        "facts in a closed world."
    ),
}


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
    lead = ""
    if "self_test" in tree.children:
        lead = readings.self_test(tree["self_test"].to_dataset())
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
        raise InputError(
            path,
            expected="the saved diagnosis of this run",
            found="a damaged file" if path.exists() else "no file",
            remedy=remedy,
        ) from error
    if provenance(tree).get("weights") not in (None, run.weights()):
        raise InputError(
            path,
            expected="a diagnosis of the weights that this run has",
            found="one of other weights",
            remedy=f"Measure again: python -m workbench diagnose {run.name}.",
        )
    return tree


def run_facts(record: Mapping[str, Any]) -> dict[str, object]:
    """Pick the numbers a reader asks for first."""
    judged = record.get("evaluation") or {}
    data = record.get("data") or {}
    config = record.get("model") or {}
    facts: dict[str, object] = {"status": record.get("status", "unknown")}
    if judged:
        error = judged.get("standard_error")
        spread = f" \u00b1 {error:.4f}" if error is not None else ""
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
