"""What `preflight` foretells of three trainings, beside what they take: memory and step time.

Memory is the peak resident set of a fresh process above what it held after its imports and a few
steps of a tiny network, which load what the libraries need whatever the model (told apart, as
`libraries_byte`); on a GPU it is torch's own count. It is measured twice: `resident`, as processes
are started everywhere, where glibc's allocator keeps freed tensors back, and `measured`, with the
allocator told to return them (MALLOC_MMAP_THRESHOLD_). Step times are foretold and measured in turn
in one process.

::

    OMP_NUM_THREADS=1 .venv/bin/python bench/forecast.py
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from record import write_result

from workbench.diagnostics import step_seconds
from workbench.folder import RunFolder
from workbench.model import ModelConfig, new_network, preset
from workbench.text import Data, open_data
from workbench.training import PEAKS, TrainConfig, train, train_config, training_bytes

CONFIGS = {
    "demo": preset("demo"),
    "6 x 256": preset("demo", n_layer=6, d_model=256, n_head=8, n_kv_head=4),
    "llama": preset("llama"),
}
BAR = 0.15
ROUNDS = 3
STATUS = Path("/proc/self/status")


def main() -> None:
    """Measure each configuration in children, and write one result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4, help="of each measured training")
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, name = options.child
        measure = {"memory": memory, "time": pace}[what]
        print(json.dumps(measure(CONFIGS[name], open_data("python-docs"), options.steps)))
        return
    found: dict[str, Any] = {"bar": BAR}
    for name in CONFIGS:
        size = child("memory", name, options.steps, MALLOC_MMAP_THRESHOLD_="131072")
        size["resident"] = child("memory", name, options.steps)["measured"]
        found[name] = {"memory": size, "time": child("time", name, options.steps)}
        for told in found[name].values():
            told["error"] = told["foretold"] / told["measured"] - 1
        print(name, json.dumps(found[name]), flush=True)
    print("written:", write_result("forecast", found))


def child(what: str, name: str, steps: int, **environment: str) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--steps", str(steps), "--child", what, name]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | environment
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def schedule(steps: int, **settings: Any) -> TrainConfig:
    """Return a training as the notebook has it, with little validation."""
    return train_config(
        optimizer={}, steps=steps, validation_tokens=2048, checkpoints=1, **settings
    )


def trained(config: ModelConfig, data: Data, steps: int, **settings: Any) -> list[float]:
    """Train in a scratch folder, and return the time of every step but the first [s]."""
    lines: list[Any] = []
    with tempfile.TemporaryDirectory() as scratch:
        network = new_network(config, seed=0)
        run = RunFolder(Path(scratch))
        train(network, data, schedule(steps, **settings), run, watch=lines.append)
    seconds = [line["seconds"] for line in lines]
    return [later - sooner for sooner, later in zip(seconds, seconds[1:], strict=False)]


def memory(config: ModelConfig, data: Data, steps: int) -> dict[str, float]:
    """Measure the memory of a training, then forecast it [byte]."""
    start = resident("VmRSS")
    # So small that what it leaves in the allocator does not count.
    tiny = replace(config, n_layer=1, d_model=16, n_head=2, n_kv_head=1, feedforward_width=32)
    trained(tiny, data, 2, sequence_length=32, tokens_per_step=256)
    before = resident("VmRSS")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        trained(config, data, steps)
        measured = torch.cuda.max_memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        trained(config, data, steps)
        measured = resident("VmHWM") - before
    size = training_bytes(config, schedule(steps), tokenizer=data.tokenizer)
    return {
        "foretold": max(size[peak] for peak in PEAKS),
        "measured": measured,
        "libraries_byte": before - start,
    }


def resident(name: str) -> int:
    """Read the resident set of this process [byte]: VmRSS now, VmHWM at most."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def pace(config: ModelConfig, data: Data, steps: int) -> dict[str, float]:
    """Forecast the time of a step and measure it, in turn [s]."""
    trained(config, data, 2)
    told, seen = [], []
    for _ in range(ROUNDS):
        told.append(step_seconds(config, data, schedule(steps)))
        seen.append(statistics.mean(trained(config, data, steps + 1)))
    return {
        "foretold": statistics.median(told),
        "measured": statistics.median(seen),
        "rounds_foretold": told,
        "rounds_measured": seen,
    }


if __name__ == "__main__":
    main()
