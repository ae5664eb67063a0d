"""A progress bar for a run: loss, bits per byte, tokens a second and time left."""

from collections.abc import Callable, Mapping
from typing import Any

from tqdm.auto import tqdm


def progress(steps: int, *, description: str = "training") -> Callable[[Mapping[str, Any]], None]:
    """Return a `watch` function that draws a bar, in the terminal as in Jupyter.

    Parameters
    ----------
    steps : int
        Updates of the whole run.
    """
    bar = tqdm(total=steps, desc=description, unit="step")
    latest: dict[str, float] = {}

    def watch(line: Mapping[str, Any]) -> None:
        if "validation_bits_per_byte" in line:
            latest["bpb"] = line["validation_bits_per_byte"]
        speed = line["tokens"] / max(line["seconds"], 1e-9)
        bpb = f", bpb {latest['bpb']:.4f}" if latest else ""
        bar.set_postfix_str(f"loss {line['loss']:.3f} nat/token{bpb}, {speed:,.0f} token/s")
        bar.update(line["step"] - bar.n)
        if line["step"] == steps:
            bar.close()

    return watch
