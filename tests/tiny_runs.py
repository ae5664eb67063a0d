"""Runs of two blocks, trained for a few updates."""

from typing import Any

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
