"""What a step of training costs here: time, tokens, arithmetic, memory, and what measuring adds.

::

    .venv/bin/python bench/training.py [--rounds 5]

On a GPU 9 x 512 at 524,288 tokens a step, on a processor 4 x 128 at 4,096, on one thread. Rounds
of ten steps with and without measurements (every tenth step, the default) are taken in alternation
in one process; processor seconds of the rounds give what the measurements cost. The result is also
appended to ``results/training.jsonl``, and the history drawn to ``reports/rendered/bench.html``.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from record import RESULTS, write_result

from workbench import diagnostics, folder, model, text, training

STEPS = 10  # of a round


def main() -> None:
    """Measure, write the result and draw the history."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    on_gpu = torch.cuda.is_available()
    data = text.open_data("python-docs")
    shape = {"n_layer": 9, "n_head": 8, "n_kv_head": 4, "d_model": 512} if on_gpu else {}
    config = model.preset("baseline" if on_gpu else "demo", **shape)
    sizes = {"tokens_per_step": 524_288, "sequence_length": 1024} if on_gpu else {}
    schedule = training.train_config(
        optimizer={}, steps=10**6, validate_every=0, checkpoints=0, resume_seconds=1e9, **sizes
    )
    spent: dict[bool, list[float]] = {True: [], False: []}
    ms: list[float] = []
    for number in range(2 * rounds):
        is_measured = number % 2 == 0
        every = STEPS if is_measured else 0
        lines, seconds = steps(
            config, data, replace(schedule, measure_every=every, steps=STEPS + 1)
        )
        spent[is_measured].append(seconds)
        ms += [] if is_measured else [line["ms"] for line in lines[1:]]
    result = described(config, schedule, statistics.median(ms))
    result |= {"gpu": torch.cuda.get_device_name() if on_gpu else None}
    result["measuring"] = statistics.median(spent[True]) / statistics.median(spent[False]) - 1
    print(json.dumps(result, indent=1))
    path = write_result("training", result)
    print("written:", path, draw(json.loads(path.read_text())))


def steps(config: Any, data: Any, schedule: Any) -> tuple[list[dict[str, Any]], float]:
    """Train one step to warm up and some that count; return lines and processor seconds."""
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        run = folder.create_run("bench", root=Path(scratch))
        network = model.new_network(config, seed=0)
        watch = lambda line: ends.append(time.process_time())  # noqa: E731
        training.train(network, data, schedule, run, watch=watch)
        return folder.read_jsonl(run.metrics), ends[-1] - ends[0]


def described(config: Any, schedule: Any, ms: float) -> dict[str, Any]:
    """Turn the time of a step into what compares across machines."""
    flops = model.flops_per_token(config, sequence_length=schedule.sequence_length)
    rate = flops * schedule.tokens_per_step / (ms / 1000)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    return {
        "shape": f"{config.n_layer} x {config.d_model}",
        "tokens_per_step": schedule.tokens_per_step,
        "ms": ms,
        "tokens_per_second": schedule.tokens_per_step / (ms / 1000),
        "flops_per_second": rate,
        "utilisation": rate / diagnostics.pace.arithmetic_rate(schedule),
        "peak_bytes": peak,
    }


def draw(entry: dict[str, Any]) -> Path:
    """Append a result to the history, and draw the history by shape and processor."""
    history = RESULTS / "training.jsonl"
    folder.append_jsonl(history, entry)
    figure = go.Figure()
    kinds: dict[str, list[dict[str, Any]]] = {}
    for each in folder.read_jsonl(history):
        place = each["values"]["gpu"] or each["machine"]["processor"]
        kinds.setdefault(f"{each['values']['shape']}, {place}", []).append(each)
    for kind, entries in kinds.items():
        code = [each["machine"]["code"] for each in entries]
        speed = [each["values"]["tokens_per_second"] for each in entries]
        figure.add_scatter(x=code, y=speed, name=kind, mode="lines+markers")
    figure.update_layout(
        xaxis_title="code version", yaxis_title="speed [token/s]", yaxis_rangemode="tozero"
    )
    path = folder.PROJECT / "reports" / "rendered" / "bench.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(path, include_plotlyjs=True)
    return path


if __name__ == "__main__":
    main()
