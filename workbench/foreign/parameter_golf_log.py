"""What the log of a Parameter Golf run tells: settings, metrics, and the scores at its end."""

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

NUMBER = r"(\d{1,12}(?:\.\d{1,12})?)"
METRICS = {
    "train_loss": "loss",
    "val_loss": "validation_loss",
    "val_bpb": "validation_bits_per_byte",
}
BYTES = re.compile(
    r"^(Serialized model|Code size|Total submission size)( [^:\n]{1,40})?: (\d{1,15}) bytes", re.M
)


def setting(text: str, variable: str, default: float) -> tuple[float, str]:
    """Find the value of an environment variable of the script, and say where it stands.

    A configuration line tells what the run used; the source that a log begins with tells only
    what it would use where the variable was not set. What is no finite number is NaN.
    """
    places = {
        "log": rf"(?:^|(?<=\s)){variable.lower()}:([-+.\d][^\s,;]*)",
        "log, default of its script": rf"environ\.get\(\s*.{variable}.\s*,\s*['\"]?([^'\")\n]*)",
    }
    for place, pattern in places.items():
        if found := re.search(pattern, text, flags=re.M):
            with suppress(ValueError):
                if math.isfinite(value := float(found[1])):
                    return value, place
            return math.nan, place
    return default, "official default, assumed"


def metrics(text: str) -> list[dict[str, Any]]:
    """Read the lines of steps, with the keys of ``metrics.jsonl``; what they lack stays out.

    ``ms`` is the mean over the steps since the line before.
    """
    per_step = setting(text, "TRAIN_BATCH_TOKENS", 0)[0]
    lines: dict[int, dict[str, Any]] = {}
    for step, rest in re.findall(r"^step:(\d{1,12})/\d+ (.*)$", text, flags=re.M):
        found = dict(re.findall(rf"(\w+):{NUMBER}", rest))
        line = lines.setdefault(int(step), {"step": int(step)})
        if per_step > 0:
            line["tokens"] = int(int(step) * per_step)
        if "train_time" in found:
            line["seconds"] = float(found["train_time"]) / 1000
        line |= {ours: float(found[theirs]) for theirs, ours in METRICS.items() if theirs in found}
    step, seconds = 0, 0.0
    for line in lines.values():
        if line["step"] > step and "seconds" in line:
            line["ms"] = round(1000 * (line["seconds"] - seconds) / (line["step"] - step), 3)
            step, seconds = line["step"], line["seconds"]
    return list(lines.values())


def notes(text: str, metrics: Sequence[Mapping[str, Any]], *, is_quantized: bool) -> dict[str, Any]:
    """Gather how long a run trained, and the bytes and the bits per byte it recorded last.

    Parameters
    ----------
    text : str
        The log.
    metrics : sequence of mapping
        Its lines of steps.
    is_quantized : bool
        Whether the score after quantisation is wanted, not the one before.

    Returns
    -------
    dict
        ``training`` (``steps, tokens_per_step, seed``, as far as known), ``recorded_bytes`` by
        what they are of, and ``recorded_bits_per_byte`` or None.
    """
    wanted = {"tokens_per_step": "TRAIN_BATCH_TOKENS", "seed": "SEED"}
    training = {name: setting(text, wanted[name], -1)[0] for name in wanted}
    training["steps"] = metrics[-1]["step"] if metrics else -1
    stage = r"final_int8_zlib_roundtrip\w*" if is_quantized else r"step:\d+/\d+"
    found = re.findall(rf"^{stage} .*\bval_bpb:{NUMBER}", text, flags=re.M)
    return {
        "training": {name: int(value) for name, value in training.items() if value >= 0},
        "recorded_bytes": {what + how: int(count) for what, how, count in BYTES.findall(text)},
        "recorded_bits_per_byte": float(found[-1]) if found else None,
    }
