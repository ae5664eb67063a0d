"""Compare with a run of the official Parameter Golf baseline script, in the folder given.

The folder holds ``data/`` (shards and tokenizer), ``initial_state.pt``, ``final_model.pt``,
``training_losses.json`` and ``train.log`` of a run with 4 layers of width 128 over 200 steps::

    .venv/bin/python bench/parameter_golf.py FOLDER --seeds 1337 42 7

Prints and records: bytes of the validation shard, bits per byte of the official checkpoint, the
first losses from the official start, bits per byte after 200 steps for each seed, and the time
of a step.
"""

import argparse
import json
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import write_result

from workbench import evaluation, folder, model, text, training

OPTIMIZER = {"momentum_warmup_steps": 100}
SETTINGS = {
    "steps": 200,
    "tokens_per_step": 4096,
    "sequence_length": 256,
    "micro_batches": 8,
    "warmdown_steps": 60,
    "device": "cpu",
}


def main() -> None:
    """Measure everything and write one result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1337, 42, 7])
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = text.open_data(options.folder / "data")
    result = {
        "bytes": counted_bytes(data),
        "official_checkpoint": official_checkpoint(options.folder, data),
        "first_losses": first_losses(options.folder, data),
        "seeds": [trained(options.folder, data, seed) for seed in options.seeds],
    }
    if result["seeds"]:
        values = [each["bits_per_byte"] for each in result["seeds"]]
        result["mean_bits_per_byte"] = statistics.mean(values)
    print(json.dumps(result, indent=1))
    print("written:", write_result("parameter_golf", result))


def counted_bytes(data: text.Data) -> dict[str, int]:
    """Count the bytes of the validation shard, in all and of the targets scored."""
    ids = data.validation.ids
    previous = np.concatenate([[data.tokenizer.bos], ids[:-1]])
    counts = data.tokenizer.byte_counts(ids, previous)
    scored = (len(ids) - 1) // 256 * 256
    return {
        "all": int(counts.sum()),
        "scored": int(counts[1 : scored + 1].sum()),
        "targets": scored,
    }


def official_checkpoint(peer: Path, data: text.Data) -> dict[str, float]:
    """Score the official final weights."""
    tensors = model.read_state(peer / "final_model.pt")
    network = model.Network(model.config_from_state(tensors))
    model.load_state(network, tensors)
    return {
        "bits_per_byte": judged(network, data),
        "official": json.loads((peer / "training_losses.json").read_text())[
            "validation_bits_per_byte_after_200_steps"
        ],
    }


def first_losses(peer: Path, data: text.Data) -> dict[str, Any]:
    """Train from the official start, with both arithmetics of Newton-Schulz."""
    official = json.loads((peer / "training_losses.json").read_text())
    tensors = model.read_state(peer / "initial_state.pt")
    found: dict[str, Any] = {}
    for dtype in ("bfloat16", "float32"):
        network = model.Network(model.config_from_state(tensors))
        model.load_state(network, tensors)
        wanted = official[f"newton_schulz_{dtype}"]
        lines = metrics(network, data, seed=0, dtype=dtype, stop_after=len(wanted))
        gaps = [abs(line["loss"] - loss) for line, loss in zip(lines, wanted, strict=True)]
        found[dtype] = {
            "losses": [round(line["loss"], 5) for line in lines[:10]],
            "largest_gap_in_10": max(gaps[:10]),
            "largest_gap": max(gaps),
            "steps": len(gaps),
            "median_ms": statistics.median(line["ms"] for line in lines),
        }
    return found


def trained(peer: Path, data: text.Data, seed: int) -> dict[str, Any]:
    """Train from our own start and score."""
    config = model.config_from_state(model.read_state(peer / "initial_state.pt"))
    network = model.new_network(config, seed=seed)
    lines = metrics(network, data, seed=seed, dtype="auto")
    official = re.findall(r"step_avg:([\d.]+)ms", (peer / "train.log").read_text())[-1]
    return {
        "seed": seed,
        "bits_per_byte": judged(network, data),
        "median_ms": statistics.median(line["ms"] for line in lines),
        "mean_ms": statistics.mean(line["ms"] for line in lines),
        "official_log_ms": float(official),
    }


class Enough(Exception):
    """Raised by the watcher when the steps asked for are done."""


def metrics(
    network: model.Network, data: text.Data, *, seed: int, dtype: str, stop_after: int = 0
) -> list[dict[str, Any]]:
    """Train with the official settings and return the lines of the metrics."""
    optimizer = {**OPTIMIZER, "newton_schulz_dtype": dtype}
    config = training.train_config(
        optimizer=optimizer, seed=seed, validate_every=0, checkpoints=0, **SETTINGS
    )
    lines: list[dict[str, Any]] = []

    def watch(line: Any) -> None:
        lines.append(dict(line))
        if len(lines) == stop_after:
            raise Enough

    with tempfile.TemporaryDirectory() as scratch:
        run = folder.create_run("golf", root=Path(scratch))
        try:
            training.train(network, data, config, run, watch=watch)
        except Enough:
            pass
    return lines


def judged(network: model.Network, data: text.Data) -> float:
    """Return bits per byte on the whole validation split."""
    table = evaluation.token_table(
        network.eval(), data.validation, data.tokenizer, sequence_length=256
    )
    return evaluation.bits_per_byte(table).bits_per_byte


if __name__ == "__main__":
    main()
