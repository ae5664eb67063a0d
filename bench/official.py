"""Steps a second beside the official Parameter Golf script, in alternation on one core.

The script is run unedited: its ``torch`` is a thin stand-in without CUDA, compiler and autocast,
as the run in the peer folder was made. Each side is a process of its own, on one thread, in
float32, at 4 layers of width 128 and 4,096 tokens a step::

    .venv/bin/python bench/official.py train_gpt.py PEER_FOLDER [--rounds 4] [--steps 12]

The figure is the median of the medians of the rounds, with the ratio of every round; the first two
steps of a process are left out, and so is compiling where it is asked for.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import types
from contextlib import nullcontext
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    **{"NUM_LAYERS": "4", "MODEL_DIM": "128", "NUM_HEADS": "4", "NUM_KV_HEADS": "2"},
    **{"MLP_MULT": "2", "VOCAB_SIZE": "1024", "TRAIN_SEQ_LEN": "256", "VAL_LOSS_EVERY": "0"},
    **{"TRAIN_BATCH_TOKENS": "4096", "VAL_BATCH_SIZE": "65536", "WARMUP_STEPS": "1"},
    **{"WARMDOWN_ITERS": "60", "MAX_WALLCLOCK_SECONDS": "0", "TRAIN_LOG_EVERY": "1"},
    **{"MUON_MOMENTUM_WARMUP_STEPS": "100", "SEED": "1337"},
}
SKIPPED = 2  # first steps, which warm up


def main() -> None:
    """Alternate and write one result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("script", type=Path)
    parser.add_argument("peer", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--compile", action="store_true", help="our side compiled")
    parser.add_argument("--child", choices=("official", "ours"))
    options = parser.parse_args()
    if options.child:
        side = official if options.child == "official" else ours
        print(json.dumps(side(options)))
        return
    from record import write_result

    rounds = [
        {side: statistics.median(child(side)[SKIPPED:]) for side in ("official", "ours")}
        for _ in range(options.rounds)
    ]
    ratios = [each["official"] / each["ours"] for each in rounds]
    result = {"rounds_ms": rounds, "ratios": ratios, "ratio": statistics.median(ratios)}
    result |= {"steps": options.steps, "compiled": options.compile}
    print(json.dumps(result, indent=1))
    print("written:", write_result("official", result))


def child(side: str) -> list[float]:
    """Run one side in a process of its own; return its ms by step."""
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, __file__, *sys.argv[1:], "--child", side]
    done = subprocess.run(
        command, env={**os.environ, **threads}, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def official(options: argparse.Namespace) -> list[float]:
    """Run the script and read the times off its log."""
    script, data = options.script.resolve(), (options.peer / "data").resolve()
    os.environ |= ENVIRONMENT | {
        "ITERATIONS": str(options.steps),
        "DATA_PATH": str(data),
        "TOKENIZER_PATH": str(data / "tiny_1024_bpe.model"),
    }
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        module = types.ModuleType("official")
        module.__file__ = str(script)
        exec(compile(script.read_text(), str(script), "exec"), module.__dict__)
        module.torch = stand_in(module.torch)
        module.GPT.bfloat16 = lambda self: self
        module.subprocess = types.SimpleNamespace(
            PIPE=None, run=lambda *_, **__: types.SimpleNamespace(stdout="")
        )
        lines: list[str] = []
        module.print = lambda *values, file=None: file or lines.append(" ".join(map(str, values)))
        module.main()
    times = [re.match(r"step:\d+/\d+ train_loss:.*train_time:(\d+)ms", line) for line in lines]
    ends = [0.0, *(float(found[1]) for found in times if found)]
    return [after - before for before, after in zip(ends, ends[1:], strict=False)]


def stand_in(torch: Any) -> Any:
    """Return torch without CUDA, compiler and autocast."""

    class Cuda:
        is_available = staticmethod(lambda: True)
        max_memory_allocated = max_memory_reserved = staticmethod(lambda: 0)

        def __getattr__(self, _: str) -> Any:
            return lambda *_, **__: None

    class Torch:
        cuda = Cuda()
        device = staticmethod(lambda *_: torch.device("cpu"))
        compile = staticmethod(lambda module, **_: module)
        autocast = staticmethod(lambda *_, **__: nullcontext())

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    sys.modules["torch.backends.cuda"].enable_math_sdp = lambda _: None
    return Torch()


def ours(options: argparse.Namespace) -> list[float]:
    """Train the same network on the same text with this library."""
    import torch

    from workbench import folder, model, text, training

    torch.set_num_threads(1)
    data = text.open_data(options.peer / "data")
    config = model.config_from_state(model.read_state(options.peer / "initial_state.pt"))
    network = model.new_network(config, seed=1337)
    settings = training.train_config(
        optimizer={"momentum_warmup_steps": 100},
        steps=options.steps,
        validate_every=0,
        checkpoints=0,
        device="cpu",
    )
    with tempfile.TemporaryDirectory() as scratch:
        run = folder.create_run("ours", root=Path(scratch))
        training.train(network, data, settings, run)
        return [line["ms"] for line in folder.read_jsonl(run.metrics)]


if __name__ == "__main__":
    main()
