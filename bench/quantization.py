"""Bytes at equal bits per byte: artifacts beside the official rule and beside GPTQ with SDClip.

::

    .venv/bin/python bench/quantization.py RUN [RUN ...] [--tokens N]

For each run and each target, the bits per byte of the official int8 rule at 31 and at 15 levels,
every matrix quantised: the bytes that each method takes to be at least as good on the same
validation text. Post-training only; one draw of calibration rows for all.

- official: clip by quantile, a float16 scale a row with its floor, one symbol a byte, zlib;
- sdclip: full-Hessian GPTQ on steps in proportion to the spread of a row, brotli of one symbol a
  byte in the better order, the step of the embedding in the best of three ratios to the others';
- artifact: what ``python -m workbench quantize`` makes, the file itself.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from record import write_result

from workbench import evaluation, quantization
from workbench.model import Network
from workbench.quantization import with_values
from workbench.quantization.budget import Quantized, highest
from workbench.quantization.methods import even_slope, official, sdclip_gptq

LEVELS = (31, 15)
RATIOS = (0.25, 0.4, 0.7)  # step of the embedding over that of the others, in deviations


def least(
    make: Callable[[float], tuple[Quantized, int]],
    score: Callable[[Network], float],
    model: Network,
    target: float,
    *,
    within: tuple[float, float],
) -> dict[str, float]:
    """Find the fewest bytes at which a method is at least as good as the target."""
    tried: dict[float, dict[str, float]] = {}

    def measure(x: float) -> float:
        tensors, size = make(2**x)
        value = score(with_values(model, tensors))
        tried[x] = {"bytes": size, "bits_per_byte": value}
        return value

    start = sum(within) / 2
    highest(measure, target, start=start, slope=0.03, within=within, tolerance=3e-5)
    good = [each for each in tried.values() if each["bits_per_byte"] <= target]
    nothing = {"bytes": math.inf, "bits_per_byte": math.nan}
    return min(good, key=lambda each: each["bytes"], default=nothing)


def compare(name: str, tokens: int | None, ratios: Sequence[float]) -> dict[str, Any]:
    """Measure one run."""
    run = evaluation.open_run(name)

    def score(model: Network) -> float:
        table = evaluation.token_table(
            model,
            run.data.validation,
            run.tokenizer,
            sequence_length=run.sequence_length,
            limit=tokens,
        )
        return evaluation.bits_per_byte(table).bits_per_byte

    started = time.perf_counter()
    quantizer = quantization.quantizer(run.model, *quantization.calibration_rows(run))
    seconds = {"curvature": time.perf_counter() - started}
    found: dict[str, Any] = {"bits_per_byte": score(run.model), "targets": {}}
    found["weights"] = sum(each.numel() for each in run.model.state_dict().values())
    for levels in LEVELS:
        tensors, size = official(quantizer, levels)
        target = score(with_values(run.model, tensors))
        ours = least(partial(even_slope, quantizer), score, run.model, target, within=(-14, -6))
        theirs = [
            least(
                partial(sdclip_gptq, quantizer, embedding=ratio),
                score,
                run.model,
                target,
                within=(-4, 4),  # a model of few updates takes steps of many deviations
            )
            | {"ratio": ratio}
            for ratio in ratios
        ]
        best = min(theirs, key=lambda each: each["bytes"])
        found["targets"][levels] = {
            "official": {"bytes": size, "bits_per_byte": target},
            "sdclip": best,
            "artifact": ours,
            "artifact / official": ours["bytes"] / size,
            "artifact / sdclip": ours["bytes"] / best["bytes"],
        }
        print(name, levels, json.dumps(found["targets"][levels]), flush=True)
    for method, make in (
        ("artifact", lambda: even_slope(quantizer, 0.001)),
        ("sdclip", lambda: sdclip_gptq(quantizer, 0.5)),
        ("official", lambda: official(quantizer, 31)),
    ):
        started = time.perf_counter()
        make()
        seconds[method] = time.perf_counter() - started
    return found | {"seconds": seconds}


def main() -> None:
    """Measure and write one result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", nargs="+", help="names of finished runs")
    parser.add_argument("--tokens", type=int, help="of validation text (default: all)")
    about = "steps of the embedding over those of the others that SDClip tries"
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS, help=about)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = {name: compare(name, options.tokens, options.ratios) for name in options.run}
    result: dict[str, Any] = {"tokens": options.tokens, "runs": runs}
    for other in ("official", "sdclip"):
        ratios = [
            target[f"artifact / {other}"]
            for each in runs.values()
            for target in each["targets"].values()
            if 0 < target[f"artifact / {other}"] < math.inf
        ]
        result[f"geometric mean of bytes, artifact / {other}"] = math.exp(
            sum(map(math.log, ratios)) / len(ratios)
        )
    print(json.dumps(result, indent=1))
    print("written:", write_result("quantization", result))


if __name__ == "__main__":
    main()
