"""Kill a run at random moments and let it go on, and compare it with one that nobody killed.

::

    .venv/bin/python bench/kills.py [--kills 50] [--seed 0]

Each run of 60 steps is a process of its own, killed (signal 9) again and again at random moments
after it began to train, and continued by another process, until it ends. Every line of its metrics
but the times, and every weight, must equal those of the run that was let alone.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS = 60
LAST = 55  # step after which a run is let alone
BESIDE = 0.02  # s after the line of a step within which a process is killed: a step or two
TIMED = ("seconds", "ms")


def main() -> None:
    """Kill, continue, compare, and write one result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=2, metavar=("RUN", "CORPUS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        train(*map(Path, options.child))
        return
    from record import write_result

    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        corpus = write_corpus(root, draw)
        whole = root / "whole"
        assert child(whole, corpus) == 0
        steps: list[int] = []  # done at each kill
        exact = runs = 0
        while len(steps) < options.kills:
            run, runs = root / f"run-{runs}", runs + 1
            done = 0  # every kill comes later in the run than the one before it
            while len(steps) < options.kills and done + 1 < LAST:
                beside = draw.random() * BESIDE
                if not child(run, corpus, after=draw.randrange(done + 1, LAST), beside=beside):
                    break  # it ended before it was killed
                done = len(lines(run))
                steps.append(done)
                print(f"kill {len(steps)} after step {done}", file=sys.stderr)
            if not (run / "model.safetensors").exists():
                assert child(run, corpus) == 0
            exact += same(run, whole)
    result = {"kills": len(steps), "steps_at_kills": steps, "runs": runs, "exact": exact}
    print(json.dumps(result))
    print("written:", write_result("kills", result))


def write_corpus(folder: Path, draw: random.Random) -> Path:
    """Write words in random order."""
    words = "the cat sat on a mat and slept by the old grey river bank in the warm sun".split()
    path = folder / "words.txt"
    path.write_text("\n\n".join(" ".join(draw.choices(words, k=400)) for _ in range(40)))
    return path


def child(run: Path, corpus: Path, *, after: int | None = None, beside: float = 0.0) -> int:
    """Train in a process; kill it soon after a step, where asked. Return its status."""
    command = [sys.executable, __file__, "--child", str(run), str(corpus)]
    metrics = run / "metrics.jsonl"
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        while after is not None and process.poll() is None:
            if (metrics.read_bytes().count(b"\n") if metrics.exists() else 0) >= after:
                time.sleep(beside)
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        return process.wait(timeout=120)


def train(path: Path, corpus: Path) -> None:
    """Begin a run, or go on with it."""
    import torch

    from workbench.folder import RunFolder
    from workbench.model import new_network, preset
    from workbench.text import open_data
    from workbench.training import TrainConfig
    from workbench.training import train as go

    torch.set_num_threads(1)
    data = open_data(str(corpus), tokenizer="bytes")
    sizes = {"tokens_per_step": 64, "sequence_length": 16, "micro_batches": 2}
    kept = {"validate_every": 10, "validation_tokens": 160, "checkpoints": 4, "measure_every": 3}
    config = TrainConfig(
        steps=STEPS, warmdown_steps=20, tokens_per_pass=32, resume_seconds=0.02, **sizes, **kept
    )
    network = new_network(preset("demo", n_layer=2, d_model=16, vocab_size=257), seed=0)
    path.mkdir(exist_ok=True)
    print("ready", flush=True)
    go(network, data, config, RunFolder(path))


def lines(run: Path) -> list[dict[str, Any]]:
    """Read the metrics without the times."""
    from workbench.folder import RunFolder, read_jsonl

    found = read_jsonl(RunFolder(run).metrics)
    return [{name: line[name] for name in line if name not in TIMED} for line in found]


def same(run: Path, whole: Path) -> bool:
    """Compare metrics and weights of two runs."""
    weights = [(each / "model.safetensors").read_bytes() for each in (run, whole)]
    return lines(run) == lines(whole) and weights[0] == weights[1]


if __name__ == "__main__":
    main()
