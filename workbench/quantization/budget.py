"""Quantise a whole model: to a step, to a number of bytes, or to a loss."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from workbench.folder import InputError
from workbench.model import Network
from workbench.quantization.artifact import pack
from workbench.quantization.curvature import Curvature
from workbench.quantization.grid import Codes
from workbench.quantization.rounding import Factor, even_slope_grid, factor, gptq

STEPS = (1e-6, 1.0)  # between which a step is looked for [nat^(1/2)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantizer:
    """A model with the curvature of its matrices: one number, the step, makes an artifact of it."""

    model: Network
    bends: Mapping[str, Curvature]
    _factors: dict[str, Factor] = field(default_factory=dict)

    def factors(self, name: str) -> Factor:
        """Factorise the inputs of a matrix, once."""
        if name not in self._factors:
            self._factors[name] = factor(self.bends[name].input)
        return self._factors[name]

    def codes(self, step: float) -> dict[str, Codes | Tensor]:
        """Quantise every matrix at one slope of loss by bytes; other tensors become float16."""
        found: dict[str, Codes | Tensor] = {}
        for name, tensor in self.model.state_dict().items():
            if name not in self.bends:
                found[name] = tensor.half().float()
                continue
            grid = even_slope_grid(self.bends[name], self.factors(name), step=step)
            found[name] = gptq(tensor, grid, self.factors(name))
        return found

    def bytes(self, step: float) -> int:
        """Return the size of the artifact at a step, by the real coder."""
        return len(pack(self.model.config, self.codes(step))[0])

    def within(self, most: int) -> float:
        """Find the least step whose artifact has at most so many bytes, to a part in a thousand.

        Raises
        ------
        InputError
            If what is not quantised alone takes more.
        """
        low, high = np.log(STEPS)
        if self.bytes(STEPS[1]) > most:
            raise InputError(
                "budget",
                expected=f"at least {self.bytes(STEPS[1]):,} bytes, which every step needs",
                found=f"{most:,} bytes",
                remedy="Raise the budget, or make the model smaller.",
            )
        while high - low > 1e-3:
            middle = (low + high) / 2
            low, high = (
                (low, middle) if self.bytes(float(np.exp(middle))) <= most else (middle, high)
            )
        return float(np.exp(high))


def with_values(model: Network, tensors: Mapping[str, Codes | Tensor]) -> Network:
    """Return a copy of the model that computes with the quantised values."""
    changed = copy.deepcopy(model)
    values = {n: e.values() if isinstance(e, Codes) else e for n, e in tensors.items()}
    changed.load_state_dict(values)
    return changed.eval()
