"""Open a run: its model, tokenizer and data, ready to be asked."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from workbench.evaluation.certificate import Ledger, certify
from workbench.evaluation.score import bits_per_byte, score_events, token_table
from workbench.folder import InputError, RunFolder, find_run, replacing
from workbench.model import Network, load_model
from workbench.result import save
from workbench.text import TOKEN_CLASSES, Data, Tokenizer, load_tokenizer, open_data, reopen_data


@dataclass(frozen=True)
class OpenRun:
    """A run's model and tokenizer in memory; its data are opened when first asked for."""

    folder: RunFolder
    record: dict[str, Any]
    model: Network
    tokenizer: Tokenizer

    @property
    def sequence_length(self) -> int:
        """Context the model was trained with, in tokens."""
        return int(self.record["training"]["sequence_length"])

    @cached_property
    def data(self) -> Data:
        """The corpus this run was trained on, checked against its recorded hash."""
        return reopen_data(self.record["data"], self.folder.path / "tokenizer")

    def data_of(self, corpus: str | None) -> Data:
        """Return the run's own data, or another corpus under the run's tokenizer."""
        if corpus is None:
            return self.data
        field = self.record["data"].get("text_field", "text")
        return open_data(corpus, text_field=field, tokenizer=self.folder.path / "tokenizer")

    def provenance(self) -> dict[str, Any]:
        """Return what every result of this run carries."""
        kept = ("name", "seed", "model", "training", "data", "environment", "steps_done")
        return {key: self.record.get(key) for key in kept}

    def checkpoints(self) -> dict[int, Path]:
        """Return the kept weights by step, oldest first."""
        found = sorted(self.folder.checkpoints.glob("step-*.safetensors"))
        return {int(path.stem.split("-")[1]): path for path in found}

    def at(self, step: int) -> Network:
        """Load the model as it was after `step` updates, on the device of `model`."""
        loaded = load_model(self.folder.path, weights=self.checkpoints()[step])
        return loaded.to(self.model.head_weight.device)


def _remedy(folder: RunFolder, record: Mapping[str, Any]) -> str:
    """Say what to do about a run without final weights."""
    if record["status"] in ("planned", "running"):
        return "Wait for it to finish."
    if record.get("origin") == "watched":
        live = "diagnose(m, data) takes a Network m, or foreign.adapt(m) of a transformers model m"
        weights = "safetensors.torch.load_model(m, checkpoint) puts a kept step into it"
        others = "Save weights of another architecture in a format that `import` reads."
        return f"Probe the live model: {live}, or of a plain one; {weights}. {others}"
    kept = sorted(folder.checkpoints.glob("step-*.safetensors"))
    again = "Train again with --replace"
    return f"{again}, or begin from -p initial_state {kept[-1]}." if kept else f"{again}."


class Checkpoints(Mapping[int, Network]):
    """The kept models of a run by step, each loaded when asked for and not held."""

    def __init__(self, run: OpenRun) -> None:
        self.run = run

    def __getitem__(self, step: int) -> Network:
        return self.run.at(step)

    def __iter__(self) -> Iterator[int]:
        return iter(self.run.checkpoints())

    def __len__(self) -> int:
        return len(self.run.checkpoints())


def open_run(name: str | Path) -> OpenRun:
    """Open a finished or stopped run by name or folder, on the GPU where there is one.

    Raises
    ------
    InputError
        If there is no such run, or it has no weights yet.
    """
    folder = find_run(name)
    record = folder.record()
    if not (folder.path / "model.safetensors").exists():
        reason = f" ({record['reason']})" if record.get("reason") else ""
        found = f"status {record['status']} and no model.safetensors{reason}"
        wanted, remedy = "a run with trained weights", _remedy(folder, record)
        raise InputError(folder.path, expected=wanted, found=found, remedy=remedy)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(folder.path).to(device)
    return OpenRun(folder, record, model, load_tokenizer(folder.path / "tokenizer"))


def evaluate(
    run: OpenRun,
    *,
    corpus: str | None = None,
    protocol: str = "full",
    limit: int | None = None,
    watch: Callable[[int], None] | None = None,
) -> tuple[dict[str, Any], xr.Dataset]:
    """Judge a run on validation text.

    Returns
    -------
    summary : dict
        ``bits_per_byte, standard_error, loss_nat, tokens, bytes, documents, protocol, context,
        corpus_hash, tokenizer_hash, artifact_bytes, by_class``, what the training could spend:
        ``budget, hardware``, and whether to believe it: ``certificate``, see `certify`.
    table : Dataset
        The token table behind it.
    """
    data = run.data_of(corpus)
    ledger = Ledger(data.validation)
    table = token_table(
        run.model,
        data.validation,
        run.tokenizer,
        sequence_length=run.sequence_length,
        protocol=protocol,
        limit=limit,
        watch=watch,
        note=ledger.note,
    )
    table = table.assign_attrs(
        corpus_hash=data.corpus.hash, tokenizer_hash=data.tokenizer.hash, corpus=data.corpus.name
    )
    training = run.record["training"]
    budget = {key: training.get(key) for key in ("seconds", "steps", "tokens_per_step")}
    place = run.record.get("environment", {})
    hardware = (
        f"{training.get('device')}, {place.get('processors')} processors, {place.get('platform')}"
    )
    summary = summarize(table) | {"budget": budget, "hardware": hardware}
    n_probed = run.sequence_length * (8 if protocol.startswith("ttt") else 2)
    cut: dict[str, Any] = {"sequence_length": run.sequence_length, "protocol": protocol}
    scorer = partial(score_events, run.model, **cut, limit=n_probed)
    summary["certificate"] = certify(ledger, scorer, n_probed=n_probed)
    return summary, table


def save_evaluation(run: OpenRun, summary: dict[str, Any], table: xr.Dataset) -> None:
    """Keep an evaluation in the run's folder: ``tokens.nc``, and the summary in its record."""
    with replacing(run.folder.path / "tokens.nc") as scratch:
        save({"tokens": table}, scratch, provenance=run.provenance())
    run.folder.update(evaluation={**summary, "weights": run.folder.weights()})


def summarize(table: xr.Dataset) -> dict[str, Any]:
    """Reduce a token table to the numbers the command line prints."""
    total = bits_per_byte(table)
    by_class = {}
    for index, name in enumerate(TOKEN_CLASSES):
        chosen = table.token_class.values == index
        if chosen.any():
            nll = table.nll.values[chosen]
            by_class[name] = {"tokens": int(chosen.sum()), "loss_nat": float(nll.mean())}
    return {
        **asdict(total),
        "split_tokens": int(table.attrs["split_tokens"]),
        "corpus_hash": table.attrs.get("corpus_hash"),
        "tokenizer_hash": table.attrs.get("tokenizer_hash"),
        "artifact_bytes": None,
        "by_class": by_class,
    }
