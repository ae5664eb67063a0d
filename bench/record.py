"""Write a measured result with the machine and the versions it was measured on."""

import json
import platform
from datetime import datetime
from pathlib import Path
from typing import Any

from workbench.folder import environment, write_json

RESULTS = Path(__file__).parent / "results"


def write_result(name: str, values: dict[str, Any]) -> Path:
    """Write ``results/NAME.json`` and return its path."""
    place = environment()
    machine = {
        "processor": _processor(),
        "processors": place["processors"],
        "platform": place["platform"],
        "python": place["python"],
        "packages": place["packages"],
        "code": place["code"],
    }
    path = RESULTS / f"{name}.json"
    date = datetime.now().date().isoformat()
    write_json(path, json.loads(json.dumps({"date": date, "machine": machine, "values": values})))
    return path


def _processor() -> str:
    """Name the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
