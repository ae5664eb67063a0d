"""Where a run stands, from its folder alone, looked at again and again."""

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from workbench import readings
from workbench.folder import RunFolder

RECENT = 20  # lines whose speed foretells the rest


class Tail:
    """The numbers of a file of metrics that grows, and may be cut to be continued.

    Parameters
    ----------
    path : Path
        ``metrics.jsonl`` of a run; need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.metrics = path, readings.Metrics()
        self.done, self.last = 0, b""  # bytes taken, and the line that they end in

    def read(self) -> bool:
        """Take what is new; tell whether there was something."""
        with self.path.open("rb") if self.path.exists() else BytesIO() as file:
            file.seek(self.done - len(self.last))
            cut = file.read(len(self.last)) != self.last  # lines hold times: none is like another
            if cut:
                self.metrics, self.done, self.last = readings.Metrics(), 0, b""
                file.seek(0)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # a line still being written waits
        lines = whole.splitlines(keepends=True)
        self.metrics.add(map(json.loads, lines))
        if lines:
            self.done, self.last = self.done + len(whole), lines[-1]
        return cut or bool(lines)


def described(run: RunFolder, record: Mapping[str, Any], metrics: readings.Metrics) -> str:
    """Say where a run stands: its step, speed, time left, and where it could go on."""
    status, training = record["status"], record.get("training") or {}
    table = metrics.table(["tokens", "seconds"])
    step = int(table.step[-1]) if table.sizes["step"] else 0
    told = [f"step {step:,} of {training.get('steps', 0):,}" if training else f"step {step:,}"]
    if status == "running" and step:
        last = table.isel(step=slice(-RECENT, None))
        steps, tokens, seconds = (
            float(np.ptp(last[name].values)) or 1.0 for name in ("step", "tokens", "seconds")
        )
        left = (training.get("steps", step) - step) * seconds / steps
        if limit := training.get("seconds"):
            left = min(left, limit - float(last.seconds[-1]))
        told.append(f"{tokens / seconds:,.0f} token/s, about {_span(left)} left")
    if status == "running" and run.asked_to_stop():
        told.append("asked to stop")
    if status != "running" and record.get("reason"):
        told.append(str(record["reason"]))
    if standing := newest(run):
        told.append(f"could go on from step {step_of(standing):,}")
    return f"{status.capitalize()}: {'; '.join(told)}."


def newest(run: RunFolder) -> Path | None:
    """Return the newest file that a run could go on from."""
    return max(run.path.glob("resume-*.safetensors"), default=None)


def step_of(path: Path) -> int:
    """Read the step in the name of a file."""
    return int(path.stem.split("-")[-1])


def _span(seconds: float) -> str:
    """Write a time in the unit that fits, coarsely."""
    units = {"s": 1, "min": 60, "h": 3600}
    unit = next(name for name, size in reversed(units.items()) if seconds >= 2 * size or size == 1)
    return f"{max(seconds, 0) / units[unit]:.2g} {unit}"
