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
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import numpy as np
import torch
from record import write_result

from workbench import evaluation, quantization
from workbench.model import Network
from workbench.quantization import Codes, Grid, Quantizer, gptq, integer_grid, nearest, with_values
from workbench.quantization.budget import Quantized, highest

LEVELS = (31, 15)
CLIP = 0.9999984  # quantile of the official rule
RATIOS = (0.4, 0.7, 1.0)  # step of the embedding over that of the others, in deviations


def official(model: Network, levels: int) -> tuple[Quantized, int]:
    """Quantise every matrix by the official rule; return it with its bytes."""
    tensors: dict[str, Any] = {}
    for name, weight in model.state_dict().items():
        if weight.ndim != 2:
            tensors[name] = weight.half().float()
            continue
        reach = weight.abs().quantile(CLIP, dim=1, keepdim=True)
        scale = (reach / levels).clamp_min(1 / levels).half().float()
        tensors[name] = nearest(weight, Grid(row_scale=scale, limit=levels))
    return tensors, len(zlib.compress(_symbols(tensors, by_column=False), 9))


def sdclip(quantizer: Quantizer, step: float, ratio: float) -> tuple[Quantized, int]:
    """Quantise by GPTQ on steps in proportion to the spread of each row; bytes by brotli."""
    tensors: dict[str, Any] = {}
    for name, weight in quantizer.model.state_dict().items():
        if name not in quantizer.bends:
            tensors[name] = weight.half().float()
            continue
        deviations = 127 * step * (ratio if "emb" in name or "lm_head" in name else 1.0)
        grid = integer_grid(weight, bits=8, deviations=deviations)
        tensors[name] = gptq(weight, grid, quantizer.factors(name))
    orders = (_symbols(tensors, by_column=each) for each in (False, True))
    return tensors, min(len(brotli.compress(each, quality=11, lgwin=24)) for each in orders)


def _symbols(tensors: Quantized, *, by_column: bool) -> bytes:
    """Lay out codes one symbol a byte, then float16 scales, then float16 tensors."""
    parts, rest = [], []
    for each in tensors.values():
        if isinstance(each, Codes):
            codes = each.codes.numpy().astype(np.int8)
            parts.append((codes.T if by_column else codes).tobytes())
            rest.append(each.grid.row_scale.half().numpy().tobytes())
        else:
            rest.append(each.half().numpy().tobytes())
    return b"".join(parts + rest)


def least(
    make: Callable[[float], tuple[Quantized, int]],
    score: Callable[[Network], float],
    model: Network,
    target: float,
    *,
    start: float,
) -> dict[str, float]:
    """Find the fewest bytes at which a method is at least as good as the target."""
    tried: dict[float, dict[str, float]] = {}

    def measure(x: float) -> float:
        tensors, size = make(2**x)
        value = score(with_values(model, tensors))
        tried[x] = {"bytes": size, "bits_per_byte": value}
        return value

    highest(measure, target, start=start, slope=0.02, tolerance=3e-5)
    good = [each for each in tried.values() if each["bits_per_byte"] <= target]
    return min(good, key=lambda each: each["bytes"])


def compare(name: str, tokens: int | None) -> dict[str, Any]:
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
        tensors, size = official(run.model, levels)
        target = score(with_values(run.model, tensors))
        ours = least(lambda step: _ours(quantizer, step), score, run.model, target, start=-10.0)
        theirs = [
            least(
                lambda step, ratio=ratio: sdclip(quantizer, step, ratio),
                score,
                run.model,
                target,
                start=-1.0,
            )
            | {"ratio": ratio}
            for ratio in RATIOS
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
        ("artifact", lambda: _ours(quantizer, 0.001)),
        ("sdclip", lambda: sdclip(quantizer, 0.5, 1.0)),
        ("official", lambda: official(run.model, 31)),
    ):
        started = time.perf_counter()
        make()
        seconds[method] = time.perf_counter() - started
    return found | {"seconds": seconds}


def _ours(quantizer: Quantizer, step: float) -> tuple[Quantized, int]:
    """Quantise on steps of even slope; bytes of the file."""
    tensors = quantizer.codes(step)
    return tensors, len(quantization.pack(quantizer.model.config, tensors)[0])


def main() -> None:
    """Measure and write one result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", nargs="+", help="names of finished runs")
    parser.add_argument("--tokens", type=int, help="of validation text (default: all)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = {name: compare(name, options.tokens) for name in options.run}
    result: dict[str, Any] = {"tokens": options.tokens, "runs": runs}
    for other in ("official", "sdclip"):
        ratios = [
            target[f"artifact / {other}"]
            for each in runs.values()
            for target in each["targets"].values()
        ]
        result[f"geometric mean of bytes, artifact / {other}"] = math.exp(
            sum(map(math.log, ratios)) / len(ratios)
        )
    print(json.dumps(result, indent=1))
    print("written:", write_result("quantization", result))


if __name__ == "__main__":
    main()
