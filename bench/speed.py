"""Ratios of two ways to the same number, timed in alternation in one process, on one thread.

::

    .venv/bin/python bench/speed.py
"""

import json
import statistics
import time
from collections.abc import Callable

import torch
from record import write_result

from workbench.diagnostics import singular_values
from workbench.model import new_network, preset, record
from workbench.training import orthogonalize


def main() -> None:
    """Measure and write one result file."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randn(128, 128, generator=generator) for _ in range(8)]
    stacked = torch.stack(matrices)
    wide = torch.randn(512, 1536, generator=generator)
    network = new_network(preset("demo"), seed=0).eval()
    ids = torch.randint(0, 1024, (8, 256), generator=generator)
    sites = [site for site in network.sites() if site.endswith("attention_out")]

    def watched() -> None:
        with torch.inference_mode(), record(network, sites):
            network(ids)

    def plain() -> None:
        with torch.inference_mode():
            network(ids)

    result = {
        "newton_schulz: one by one / batched": ratio(
            lambda: [orthogonalize(matrix) for matrix in matrices], lambda: orthogonalize(stacked)
        ),
        "spectrum 512x1536: svdvals float64 / Gram float64": ratio(
            lambda: torch.linalg.svdvals(wide.double()), lambda: singular_values(wide)
        ),
        "forward with 4 recorded sites / plain": ratio(watched, plain),
    }
    print(json.dumps(result, indent=1))
    print("written:", write_result("speed", result))


def ratio(
    slow: Callable[[], object], fast: Callable[[], object], *, repeats: int = 15
) -> dict[str, float]:
    """Time both in alternation and compare the medians."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 1):
        for action, spent in zip((slow, fast), times, strict=True):
            started = time.perf_counter()
            action()
            spent.append(time.perf_counter() - started)
    first, second = (statistics.median(spent[1:]) for spent in times)  # the first warms up
    return {"ratio": first / second, "first_ms": 1000 * first, "second_ms": 1000 * second}


if __name__ == "__main__":
    main()
