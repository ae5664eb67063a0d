"""What the default sweep costs beside a plain evaluation of the same tokens, on one thread.

::

    .venv/bin/python bench/sweep.py

Random weights on random tokens. Times are processor seconds of one thread, taken in alternation in
one process, so that other work on the machine counts little; each peak of memory is that of a
process of its own, above what it held before. The sweep includes the results of its reducers.
Up to 131,072 tokens about 8,192 are sampled whatever the length, so a shorter text has a higher
ratio.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import write_result

from workbench.diagnostics import Sample, diagnostics, effective_rank, sweep
from workbench.evaluation import token_table
from workbench.model import new_network, preset
from workbench.text import Data, Tokens, open_data

SHAPES: dict[str, dict[str, Any]] = {
    "4 x 128": {"preset": "demo", "context": 256, "tokens": 131_072, "repeats": 3, "bar": 1.8},
    "9 x 512": {"preset": "baseline", "context": 1024, "tokens": 98_304, "repeats": 1, "bar": 1.4},
}
DOCUMENT = 1024  # tokens of a document


def main() -> None:
    """Measure and write one result file, or (``--one``) do one thing and print its peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, nargs="*", default=list(SHAPES))
    parser.add_argument("--one", choices=["plain", "sweep"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.one:
        action = actions(options.shape[0], tokens=8 * 1024)[options.one]
        before = reset_peak()
        action()
        print(peak() - before)
        return
    result = {shape: measured(shape) for shape in options.shape}
    print(json.dumps(result, indent=1))
    print("written:", write_result("sweep", result))


def measured(shape: str) -> dict[str, Any]:
    """Compare sweep and evaluation of one shape: seconds, their ratio, megabytes."""
    asked = SHAPES[shape]
    both = actions(shape, tokens=asked["tokens"])
    times: dict[str, list[float]] = {name: [] for name in both}
    for _ in range(asked["repeats"]):
        for name, action in both.items():
            times[name].append(seconds(action))
    found = {f"{name}_s": round(statistics.median(spent), 2) for name, spent in times.items()}
    held = {name: megabytes(shape, name) for name in both}
    model = new_network(preset(asked["preset"]), seed=0)
    return {
        "tokens": asked["tokens"],
        **found,
        "ratio": round(found["sweep_s"] / found["plain_s"], 3),
        "bar": asked["bar"],
        "extra_peak_megabytes": round(held["sweep"] - held["plain"]),
        "weight_spectra_s": round(seconds(lambda: effective_rank(model)), 2),
        "reducers": list(reducers_of(sample_of(shape, tokens=1024))),
    }


def actions(shape: str, *, tokens: int) -> dict[str, Callable[[], object]]:
    """Return the two ways over the same tokens."""
    given = sample_of(shape, tokens=tokens)
    split = given.data.validation, given.tokenizer
    length = given.sequence_length

    def swept() -> None:
        reducers = list(reducers_of(given).values())
        table = sweep(given.model, *split, sequence_length=length, reducers=reducers)
        for reducer in reducers:
            reducer.result(table)

    return {
        "plain": lambda: token_table(given.model, *split, sequence_length=length),
        "sweep": swept,
    }


def reducers_of(given: Sample) -> dict[str, Any]:
    """Start every diagnostic that the default sweep feeds."""
    known = diagnostics().items()
    return {name: each.start(given) for name, each in known if each.start and not each.lacks(given)}


def sample_of(shape: str, *, tokens: int) -> Sample:
    """Make a network and random tokens for it."""
    asked = SHAPES[shape]
    config = preset(asked["preset"])
    model = new_network(config, seed=0).eval()
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("proj.weight"):  # zero in a fresh network: nothing would be written
                parameter.normal_(0, parameter.shape[1] ** -0.5, generator=generator)
    ids = rng.integers(0, config.vocab_size, tokens + 1).astype(np.int32)
    split = Tokens(ids=ids, starts=np.arange(0, tokens, DOCUMENT))
    data = replace(data_of(config.vocab_size), train=split, validation=split)
    return Sample(model=model, data=data, sequence_length=asked["context"])


def data_of(vocab_size: int) -> Data:
    """Train a tokenizer on random words, for what token ids mean."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), rng.integers(2, 9))) for _ in range(4000)]
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "words.txt"
        lines = [" ".join(rng.choice(words, 200)) for _ in range(60)]
        text.write_text("\n\n".join(lines), encoding="utf-8")
        return open_data(text, vocab_size=vocab_size)


def seconds(action: Callable[[], object]) -> float:
    """Time one call in processor seconds."""
    started = time.process_time()
    action()
    return time.process_time() - started


def megabytes(shape: str, name: str) -> float:
    """Return how far one thing raises the memory of a process of its own."""
    command = [sys.executable, __file__, "--shape", shape, "--one", name]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return int(done.stdout.split()[-1]) / 1024


def reset_peak() -> int:
    """Forget the peak so far (Linux); return the memory held now [kB]."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak()


def peak() -> int:
    """Return the peak of resident memory [kB]."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
