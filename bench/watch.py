"""What watching a stranger's training loop costs: GPT-2 from transformers, with and without.

::

    .venv/bin/python bench/watch.py

Two copies of one model train on the same batches in turn, a step of each, on one thread; the bar is
a ratio of 1.08. The watched side pays for all: norms, sampled updates, lines and checkpoints.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import write_result
from transformers import GPT2Config, GPT2LMHeadModel

import workbench

STEPS = 120
WARMUP = 10  # steps left out: allocation, and the first measurement
ROWS, LENGTH, VOCABULARY = 12, 64, 1024  # a small GPT on a processor


def main() -> None:
    """Measure and write one result file."""
    torch.set_num_threads(1)
    (plain, model, optimizer), (watched, other, other_optimizer) = (script() for _ in range(2))
    times: dict[str, list[float]] = {"plain": [], "watched": []}
    losses: dict[str, list[float]] = {"plain": [], "watched": []}
    with tempfile.TemporaryDirectory() as folder:
        with workbench.watch(other, other_optimizer, Path(folder) / "runs" / "watched"):
            for step in range(STEPS):
                order = [("plain", plain), ("watched", watched)]
                for name, take in order[:: 1 - 2 * (step % 2)]:
                    started = time.perf_counter()
                    losses[name].append(take(step))
                    times[name].append(time.perf_counter() - started)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    sums = {name: sum(spent[WARMUP:]) for name, spent in times.items()}
    medians = {name: 1000 * statistics.median(spent[WARMUP:]) for name, spent in times.items()}
    pairs = zip(times["watched"][WARMUP:], times["plain"][WARMUP:], strict=True)
    result: dict[str, Any] = {
        "watched / plain, sums": sums["watched"] / sums["plain"],
        "watched / plain, median of pairs": statistics.median(a / b for a, b in pairs),
        "median_ms": medians,
        "same_losses": losses["plain"] == losses["watched"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens_per_step": ROWS * LENGTH,
        "steps": STEPS - WARMUP,
        "folder_bytes": size,
    }
    print(json.dumps(result, indent=1))
    print("written:", write_result("watch", result))


def script() -> tuple[Callable[[int], float], torch.nn.Module, torch.optim.Optimizer]:
    """Make a stranger's script: a function that takes one step and returns its loss."""
    torch.manual_seed(0)
    shape = GPT2Config(
        n_layer=4,
        n_head=4,
        n_embd=128,
        n_positions=LENGTH,
        vocab_size=VOCABULARY,
        bos_token_id=0,
        eos_token_id=0,
    )
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        setattr(shape, name, 0.0)  # the twins must not share the global generator
    model = GPT2LMHeadModel(shape).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def take(step: int) -> float:
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=generator)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return take, model, optimizer


if __name__ == "__main__":
    main()
