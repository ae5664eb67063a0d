"""Runs of two blocks, trained for a few updates."""

from pathlib import Path
from typing import Any

from workbench import quantization
from workbench.evaluation import open_run
from workbench.folder import RunFolder
from workbench.model import new_network, preset
from workbench.text import Data
from workbench.training import begin, train, train_config


def trained(name: str, data: Data, *, steps: int, checkpoints: int = 0, **model: Any) -> RunFolder:
    """Train on rows of 32 tokens; `model` changes fields of the network."""
    config = train_config(
        optimizer={},
        device="cpu",
        steps=steps,
        tokens_per_step=128,
        sequence_length=32,
        micro_batches=1,
        warmdown_steps=1,
        checkpoints=checkpoints,
    )
    shape = {"n_layer": 2, "d_model": 16, "vocab_size": data.tokenizer.vocab_size}
    network = new_network(preset("demo", **shape, **model), seed=0)
    run = begin(name, network, data, config, replace=True)
    train(network, data, config, run)
    return run


def quantized(folder: Path, *, step: float = 0.002) -> Path:
    """Give a run an artifact, and two in its record; return the file of the first."""
    run = open_run(folder)
    length, path = run.sequence_length, run.folder.path / "artifact.wba"
    rows, scored = quantization.training_rows(run.data.train, sequence_length=length, n_row=8)
    tensors = quantization.quantizer(run.model, rows, scored).codes(step=step)
    size = sum(quantization.write_artifact(run.model.config, tensors, path).values())
    made = {"first": {"bytes": size, "gap": 0.02, "gap_standard_error": 0.001}}
    made["second"] = {"bytes": 2 * size, "gap": 0.001, "gap_standard_error": None}
    run.folder.update(artifacts=made, artifact="first")
    return path
