"""Does late quantisation-aware training pay: beside a float model trained for as many updates.

::

    .venv/bin/python bench/late_quantization.py RUN [--steps N] [--begin SHARE ...]

A finished run is continued on the same batches, as ``train -p parent`` would: in float, and with
`LateQuantization`, whose grid (symmetric, one scale a row, clip searched) is laid over the weights
when it turns on: below a share of the full learning rate. All are then rounded: to the very grid
trained for, the float weights also to one of their own, and by what ``quantize`` makes of each
within the bytes of the rounded late line. Every artifact is read again. Differences are paired over
the documents of the whole validation split, which chose nothing; they say nothing of seeds.
"""

import argparse
import copy
import json
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from record import write_result

from workbench import evaluation, quantization, training
from workbench.folder import create_run, read_jsonl
from workbench.model import Network
from workbench.quantization import Grid, LateQuantization, Quantizer, clip_search, nearest
from workbench.quantization.budget import Quantized
from workbench.quantization.late import BEGIN

BITS = (4, 3)  # 15 and 7 levels


@dataclass(frozen=True, kw_only=True)
class Line:
    """A model that was trained on, and what comparing it takes."""

    model: Network
    losses: list[float]  # of each update [nat/token]
    seconds: float  # of the processor
    table: xr.Dataset  # of the validation split
    quantizer: Quantizer


def continued(
    run: evaluation.OpenRun, config: training.TrainConfig, model: Network, **how: Any
) -> Line:
    """Train a model on, in place."""
    started = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        folder = create_run("continued", root=Path(place))
        training.train(model, run.data, config, folder, **how)
        losses = [line["loss"] for line in read_jsonl(folder.metrics)]
    seconds = time.process_time() - started
    quantizer = quantization.quantizer(model, *quantization.calibration_rows(run))
    table = score(run, model)
    return Line(model=model, losses=losses, seconds=seconds, table=table, quantizer=quantizer)


def beside(
    run: evaluation.OpenRun, config: training.TrainConfig, plain: Line, bits: int, begin: float
) -> dict[str, Any]:
    """Train a late line, and measure it beside the float one."""
    model, grids, on = copy.deepcopy(run.model), dict[str, Grid](), list[int]()
    late = LateQuantization(grids=grids, begin=begin)

    def watch(line: Mapping[str, Any]) -> None:
        late.watch(line)
        if late.blend == 1 and not on:
            on.append(line["step"])
            grids.update(searched(model, plain.quantizer, bits))

    line = continued(run, config, model, watch=watch, objective=late.wrap(training.next_token_loss))
    own = searched(plain.model, plain.quantizer, bits)
    made = {"late, on its grid": rounded(line, grids)}
    made |= {"float, on that grid": rounded(plain, grids), "float, on its own": rounded(plain, own)}
    budget = len(quantization.pack(model.config, made["late, on its grid"])[0])
    for name, each in {"late": line, "float": plain}.items():
        made[f"{name}, quantize"] = each.quantizer.codes(each.quantizer.within(budget))
    read = {name: reread(model, tensors) for name, tensors in made.items()}
    tables = {name: score(run, network) for name, (network, _) in read.items()}
    exported, seen = read["late, on its grid"][0], late.values(model)
    losses = enumerate(zip(line.losses, plain.losses, strict=True), start=1)
    found: dict[str, Any] = {
        "bits": bits,
        "begin": begin,
        "blend_is_1_after_update": on[0] if on else None,
        "first_update_that_differs": next((at for at, (a, b) in losses if a != b), None),
        "share_on_grid": {"float": share(model, grids), "artifact": share(exported, grids)},
        "artifact_is_what_training_saw": all(
            torch.equal(exported.get_parameter(name), value) for name, value in seen.items()
        ),
        "processor_seconds": line.seconds,
    }
    found["late, float weights"] = told(line.table, plain.table)
    for name, table in tables.items():
        found[name] = {"bytes": read[name][1], **told(table, plain.table)}
    pairs = [("late, on its grid", other) for other in made if other != "late, on its grid"]
    for this, that in [*pairs, ("late, quantize", "float, quantize")]:
        found[f"{this} - {that}"] = told(tables[this], tables[that])
    print(json.dumps(found, indent=1), flush=True)
    return found


def searched(model: Network, quantizer: Quantizer, bits: int) -> dict[str, Grid]:
    """Search the clip of every row of every matrix."""
    return {n: clip_search(model.get_parameter(n).detach(), bits=bits) for n in quantizer.bends}


def rounded(line: Line, grids: Mapping[str, Grid]) -> Quantized:
    """Round every matrix to its grid; what has none becomes float16."""
    named = line.quantizer.tensors.items()
    return {n: nearest(w, grids[n]) if n in grids else w.half().float() for n, w in named}


def reread(model: Network, tensors: Quantized) -> tuple[Network, int]:
    """Write an artifact and read it again; return its network and its bytes."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "made.wba"
        quantization.write_artifact(model.config, tensors, path)
        return quantization.open_artifact(path)[0], path.stat().st_size


def share(model: Network, grids: Mapping[str, Grid]) -> float:
    """Return the share of weights that are exactly a value of their grid."""
    weights = {name: model.get_parameter(name).detach() for name in grids}
    found = sum(int((nearest(w, grids[n]).values() == w).sum()) for n, w in weights.items())
    return found / max(1, sum(each.numel() for each in weights.values()))


def score(run: evaluation.OpenRun, model: Network) -> xr.Dataset:
    """Score the whole validation split."""
    tokens, length = run.data.validation, run.sequence_length
    return evaluation.token_table(model, tokens, run.tokenizer, sequence_length=length)


def told(table: xr.Dataset, other: xr.Dataset) -> dict[str, Any]:
    """Return bits per byte, and what lies between them and `other` with its standard error."""
    bits = (table["nll"] - other["nll"]).values / math.log(2)
    size = table["bytes"].values.astype(float)
    error = evaluation.ratio_error(bits, size, table["group"].values)
    own = evaluation.bits_per_byte(table).bits_per_byte
    gap = float(bits.sum() / size.sum())
    return {"bits_per_byte": own, "gap": gap, "gap_standard_error": error}


def main() -> None:
    """Measure and write one result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--begin", type=float, nargs="+", default=[BEGIN])
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = evaluation.open_run(options.run)
    cut = {"sequence_length": run.sequence_length}
    how = {"steps": options.steps, "validate_every": 0, "checkpoints": 0, **cut}
    start = training.judge_start(run.model, run.data, **cut)
    config = training.train_config(optimizer={}, start=start, **how)
    plain, before = continued(run, config, copy.deepcopy(run.model)), score(run, run.model)
    shown = ("steps", "learning_rate_factor", "warmup_steps", "warmdown_steps")
    result: dict[str, Any] = {"run": run.folder.name} | {n: getattr(config, n) for n in shown}
    result |= {"start": told(before, plain.table), "float": told(plain.table, before)}
    result["float"]["processor_seconds"] = plain.seconds
    print(json.dumps(result, indent=1), flush=True)
    tried = [(begin, bits) for begin in options.begin for bits in BITS]
    result["late"] = [beside(run, config, plain, bits, begin) for begin, bits in tried]
    result["processor_seconds"] = time.process_time()
    print("written:", write_result("late_quantization", result))


if __name__ == "__main__":
    main()
