"""Lines of a training whose noise, clipping and idle weights are known."""

from typing import Any

import numpy as np

BATCH = 512  # tokens a step


def planted_lines(
    steps: int = 200, *, scale: float = 2000.0, spread: float = 0.1, first: int = 1, seed: int = 0
) -> list[dict[str, Any]]:
    """Lines as `train` writes them; every tenth has measurements, with a noise scale of `scale`."""
    draw = np.random.default_rng(seed)
    lines = []
    for step in range(first, first + steps):
        line: dict[str, Any] = {"step": step, "tokens": BATCH * step, "seconds": 0.5 * step}
        line |= {"ms": 500 + draw.random(), "loss": 3 + 1 / step, "grad_norm": 1.0 + draw.random()}
        line |= {"learning_rate": 0.04, "clipped": step % 4 == 0}
        line["scalars"] = {"blocks.0.attn.q_gain.0": 1 + step / 100, "value_residual.alpha.0": 0.5}
        if step % 10 == 0:
            line["grad_norm_by_kind"] = {"matrix": 0.9, "embedding": 0.1}
            line |= {"update_ratio": 0.002, "zero_update_share": 0.25}
            line["update_ratio_by_matrix"] = {"blocks.0.attn.query.weight": 0.002}
            square, variance = draw.normal(1, [spread, min(spread, 0.5)])
            line |= {"gradient_square": square, "gradient_variance": scale * variance}
        if step % 50 == 0:
            line["validation_bits_per_byte"] = 2.5
        lines.append(line)
    return lines
