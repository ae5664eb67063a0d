"""Quantise a whole model: to a number of bytes, or to a loss."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import xarray as xr
from torch import Tensor

from workbench.folder import InputError
from workbench.model import Network
from workbench.quantization.artifact import pack
from workbench.quantization.curvature import Curvature, curvature
from workbench.quantization.forecast import coded_bytes
from workbench.quantization.grid import Codes, values_of
from workbench.quantization.rounding import Factor, even_slope_grid, factor, gptq
from workbench.result import check, variable

OCTAVES = (-20.0, 2.0)  # between which a step is looked for [log2 nat^(1/2)]
TRIALS = 30  # at most, until a budget is met; half a dozen are usual
FINEST = 1e-4  # octaves
SLACK = 1e-4  # of a byte budget that may be left over
NEAR = 0.05  # of a gap that may be left over
Quantized = Mapping[str, Codes | Tensor]


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
        for name, tensor in self.tensors.items():
            if name not in self.bends:
                found[name] = tensor.half().float()
                continue
            grid = even_slope_grid(self.bends[name], self.factors(name), step=step)
            found[name] = gptq(tensor, grid, self.factors(name))
        return found

    def bytes(self, step: float) -> int:
        """Return the size of the artifact at a step, by the real coder."""
        return len(pack(self.model.config, self.codes(step))[0])

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The weights in float32 on the CPU, where they are quantised and coded."""
        return {n: each.detach().float().cpu() for n, each in self.model.state_dict().items()}

    @property
    def _n_weight(self) -> int:
        """Weights that are quantised."""
        return sum(self.tensors[name].numel() for name in self.bends)

    def conditioning(self) -> xr.Dataset:
        """Say how well each matrix is known: dim ``matrix``, see the ``long_name`` of each."""
        known = {name: self.factors(name) for name in self.bends}
        inputs = {name: len(each.dead) for name, each in known.items()}
        per_input = [bend.tokens / inputs[name] for name, bend in self.bends.items()]
        columns = {
            "condition_number": [each.condition for each in known.values()],
            "headroom": [each.headroom for each in known.values()],
            "dead_inputs": [int(each.dead.sum()) for each in known.values()],
            "tokens_per_input": per_input,
        }
        told = (
            "condition number of the inputs, damped",
            "gain of a step for each column over one for all, dB",
            "inputs that are never on",
            "calibration tokens for each input",
        )
        data = {
            name: variable("matrix", values, what)
            for (name, values), what in zip(columns.items(), told, strict=True)
        }
        return check(xr.Dataset(data, coords={"matrix": list(known)}))

    def within(self, most: int) -> float:
        """Find about the least step whose artifact has at most so many bytes.

        Raises
        ------
        InputError
            If what is not quantised alone takes more.
        """
        search: dict[str, Any] = {"slope": self._n_weight / 8, "within": (-OCTAVES[1], -OCTAVES[0])}
        # A halved step is a bit more for each weight; forecasts lead near, the coder decides.
        near = highest(lambda x: coded_bytes(self.codes(2**-x)), most, start=8.0, **search)
        start = -OCTAVES[1] if near is None else near
        found = highest(lambda x: self.bytes(2**-x), most, start=start, **search)
        if found is None:
            least = self.bytes(2 ** OCTAVES[1])
            raise InputError(
                "budget",
                expected=f"at least {least:,} bytes, which every step needs",
                found=f"{most:,} bytes",
                remedy="Raise the budget, or make the model smaller.",
            )
        return float(2**-found)

    def costing(self, gap: float, cost: Callable[[Network], float]) -> float:
        """Find about the largest step whose artifact costs at most so much.

        Parameters
        ----------
        gap : float
            In the unit of `cost`, such as bit/byte over the model as it is.
        cost : callable
            Judges a quantised model on text that has no other part in the result.

        Raises
        ------
        InputError
            If the gap is not positive, or every step costs more.
        """
        if not 0 < gap < math.inf:
            raise InputError(
                "gap",
                expected="a positive number of bits per byte",
                found=f"{gap:g}",
                remedy="Take 0.005, or give a number of bytes in its place.",
            )
        start = 0.5 * math.log2(24 * gap / self._n_weight)  # were the unit nat/token
        found = highest(
            lambda x: cost(with_values(self.model, self.codes(2**x))),
            gap,
            start=start,
            slope=2 * math.log(2) * gap,  # a cost follows the square of the step
            tolerance=NEAR,
        )
        if found is None:
            raise InputError(
                "gap",
                expected="more than the least that was measured",
                found=f"{gap:g}",
                remedy="Raise it: other text would move the cost by more.",
            )
        return float(2**found)


def quantizer(model: Network, rows: Tensor, scored: Tensor, *, seed: int = 0) -> Quantizer:
    """Measure what the steps follow, on rows of `training_rows` or `own_rows`."""
    return Quantizer(model=model, bends=curvature(model, rows, scored=scored, seed=seed))


def highest(
    measure: Callable[[float], float],
    most: float,
    *,
    start: float,
    slope: float,
    within: tuple[float, float] = OCTAVES,
    tolerance: float = SLACK,
) -> float | None:
    """Find about the highest argument at which a rising function is at most `most`.

    Secants lead, and the middle of what is left where they close in too slowly. None where no
    argument tried is low enough.
    """
    low, high = within
    found, widths = None, [high - low]
    x, before = min(max(start, low), high), None
    for _ in range(TRIALS):
        value = measure(x)
        if value <= most:
            low = found = x
        else:
            high = x
        widths.append(high - low)
        if 0 <= most - value <= tolerance * most or high - low < FINEST:
            break
        if before is not None and x != before[0]:
            slope = (value - before[1]) / (x - before[0])
        before = x, value
        ahead = x + (most - value - tolerance * most / 2) / slope if slope > 0 else high
        is_slow = len(widths) > 3 and widths[-1] > widths[-3] / 2
        x = ahead if low < ahead < high and not is_slow else (low + high) / 2
    return found


def with_values(model: Network, tensors: Quantized) -> Network:
    """Return a copy of the model that computes with the quantised values."""
    changed = copy.deepcopy(model)
    changed.load_state_dict({name: values_of(each) for name, each in tensors.items()})
    return changed.eval()
