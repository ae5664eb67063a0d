"""What a configuration reaches in ninety seconds of training on one core, three seeds each.

::

    .venv/bin/python bench/ninety_seconds.py PEER_FOLDER [--only NAME ...] [--seeds 1337,42,7]

The text, the validation split and its whole score are those of the peer run (4 blocks of width 128,
vocabulary 1,024), the weights those of that size. Only training is in the ninety seconds, as in the
peer's own log; every configuration is a run of `workbench.training` with the settings named here.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from record import write_result

from workbench import evaluation, model, text, training
from workbench.folder import RunFolder

SECONDS = 90.0
SHAPE = {"n_layer": 4, "n_head": 4, "n_kv_head": 2, "d_model": 128, "vocab_size": 1024}
SMALL = {"tokens_per_step": 1024, "micro_batches": 4, "warmdown_share": 0.5}
HALF = {"optimizer": {"matrix_lr": 0.02, "scalar_lr": 0.02, "tied_embedding_lr": 0.03}}
CONFIGURATIONS: Mapping[str, Mapping[str, Any]] = {
    "4,096 tokens a step": {"warmdown_share": 0.3},
    "2,048 tokens": {**SMALL, "tokens_per_step": 2048, "micro_batches": 8},
    "1,024 tokens": SMALL,
    "1,024 tokens, value residual": {**SMALL, "model": {"value_residual": True}},
    "1,024 tokens, half rates": {**SMALL, **HALF},
    "1,024 tokens, context 128": {**SMALL, "sequence_length": 128, "micro_batches": 8},
    "512 tokens, half rates": {**SMALL, **HALF, "tokens_per_step": 512, "micro_batches": 2},
    "1,024 tokens, context 128, value residual": {
        **SMALL,
        **{"sequence_length": 128, "micro_batches": 8, "model": {"value_residual": True}},
    },
    "1,024 tokens, context 128, value residual, half rates": {
        **{**SMALL, **HALF},
        **{"sequence_length": 128, "micro_batches": 8, "model": {"value_residual": True}},
    },
    "1,024 tokens, average": {
        **SMALL,
        "warmdown_share": 0.3,
        "average": {"kind": "ema", "decay": 0.98},
    },
}


def main() -> None:
    """Train every configuration with every seed, and write one result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", type=Path, help="folder with the data of the official run")
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--seeds", default="1337,42,7")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = text.open_data(options.peer / "data")
    found: dict[str, dict[str, Any]] = {}
    for name in options.only:
        runs = [trained(data, seed, **CONFIGURATIONS[name]) for seed in seeds(options.seeds)]
        scores = [each["bits_per_byte"] for each in runs]
        spread = statistics.stdev(scores) if len(scores) > 1 else None
        found[name] = {"runs": runs, "mean": statistics.mean(scores), "deviation": spread}
        print(name, json.dumps(found[name]), flush=True)
    print("written:", write_result("ninety_seconds", {"seconds": SECONDS, "configurations": found}))


def seeds(given: str) -> list[int]:
    """Read seeds with commas between them."""
    return [int(each) for each in given.split(",")]


def trained(data: text.Data, seed: int, **settings: Any) -> dict[str, Any]:
    """Train once; return the score of the whole validation split and the updates done."""
    shape = SHAPE | settings.pop("model", {})
    network = model.new_network(model.preset("baseline", **shape), seed=seed)
    given = {"optimizer": {}, "sequence_length": 256, "micro_batches": 8, **settings}
    given["optimizer"] = {"momentum_warmup_steps": 100} | given["optimizer"]
    still = {"validate_every": 0, "checkpoints": 0, "measure_every": 0, "resume_seconds": 1e9}
    config = training.train_config(
        steps=100_000, seconds=SECONDS, warmdown_steps=0, device="cpu", seed=seed, **still, **given
    )
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        training.train(network, data, config, run)
        steps = run.record()["steps_done"]
    length = config.sequence_length
    table = evaluation.token_table(
        network, data.validation, data.tokenizer, sequence_length=max(length, 256)
    )
    score = evaluation.bits_per_byte(table)
    return {"seed": seed, "steps": steps, "bits_per_byte": score.bits_per_byte}


if __name__ == "__main__":
    main()
