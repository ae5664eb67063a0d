"""Lines of ``metrics.jsonl`` as a table, and the gradient noise scale in it."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench.result import variable

UNITS = {"loss": "nat/token", "validation_bits_per_byte": "bit/byte", "tokens": "token"}
UNITS |= {"seconds": "s", "ms": "ms"}
NOISE = ("gradient_variance", "gradient_square")
WINDOW, LEAST = 20, 5  # measurements of the noise that are joined at most, and at least
SPREAD = 2.0  # standard errors on either side
Values = NDArray[np.float64]


class Metrics:
    """Numbers of the lines of ``metrics.jsonl``, of which more may come.

    Parameters
    ----------
    lines : iterable of mapping
        The first of them.
    """

    def __init__(self, lines: Iterable[Mapping[str, Any]] = ()) -> None:
        self.steps = array("q")
        self.found: dict[str, tuple[array[int], array[float]]] = {}  # lines, and values there
        self.add(lines)

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Take further lines."""
        for line in lines:
            for name, value in _numbers(line):
                rows, values = self.found.setdefault(name, (array("q"), array("d")))
                rows.append(len(self.steps))
                values.append(value)
            self.steps.append(line["step"])

    def table(self, names: Iterable[str] | None = None) -> xr.Dataset:
        """Lay out numbers over ``step``, all or those named; NaN where one was not logged."""
        steps, series = np.array(self.steps), {}
        for name in self.found if names is None else names:
            if name in self.found:
                whole = np.full(len(steps), np.nan)
                rows, values = self.found[name]
                whole[np.array(rows)] = np.array(values)
                series[name] = variable("step", whole, name.replace("_", " "), UNITS.get(name, "1"))
        return xr.Dataset(series, coords={"step": steps})


def tabled(metrics: Sequence[Mapping[str, Any]] | xr.Dataset) -> xr.Dataset:
    """Return lines of ``metrics.jsonl`` as one table over ``step``.

    A number within a mapping is called after both: ``scalars.value_residual.alpha.0``.
    """
    return metrics if isinstance(metrics, xr.Dataset) else Metrics(metrics).table()


def logged(metrics: Sequence[Mapping[str, Any]] | xr.Dataset, name: str) -> tuple[Values, Values]:
    """Take one quantity where it was logged: steps and values."""
    table = tabled(metrics)
    series = table[name] if name in table else table.step[:0]
    series = series[np.isfinite(series.values)]
    return series.step.values.astype(float), series.values


def scalar_kind(name: str) -> str | None:
    """Name the kind of a learned scalar, ``q_gain`` or ``alpha``; None of other numbers."""
    parts = [part for part in name.split(".")[1:] if not part.isdigit() and part != "mean"]
    return parts[-1] if parts and name.startswith("scalars.") else None


def noise_scale(metrics: Sequence[Mapping[str, Any]] | xr.Dataset) -> xr.Dataset:
    """Return the gradient noise scale [token] over ``step``, where it was measured.

    It is the ratio of the means of `gradient_variance` and `gradient_square` over the last
    `WINDOW` measurements, fewer at the start. Steps are taken as independent, so that the interval
    is rough: the ratios that are within `SPREAD` standard errors by Fieller's theorem.

    Returns
    -------
    Dataset over step
        ``noise_scale``, NaN where the gradient has no size; ``low`` and ``high``, infinite where
        the gradient is not told apart from zero.

    References
    ----------
    .. [1] McCandlish et al., An Empirical Model of Large-Batch Training, 2018.
    .. [2] Fieller, Some Problems in Interval Estimation, 1954.
    """
    table = tabled(metrics)
    known = NOISE[0] in table and NOISE[1] in table
    pairs = {name: table[name].values if known else np.empty(0) for name in NOISE}
    frame = pd.DataFrame(pairs, index=table.step.values if known else []).dropna()
    recent = frame.rolling(WINDOW, min_periods=LEAST)
    top, below = (recent[name].mean().to_numpy() for name in NOISE)
    over = SPREAD**2 / recent.count().to_numpy()[:, 0]
    first, last = (
        mean**2 - over * recent[name].var().to_numpy()
        for mean, name in zip((top, below), NOISE, strict=True)
    )
    middle = top * below - over * recent[NOISE[0]].cov(frame[NOISE[1]]).to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        root = middle + np.sqrt(np.maximum(middle**2 - first * last, 0))
        found = {
            "noise_scale": np.where((below > 0) & (top > 0), top / below, np.nan),
            "low": np.where((first > 0) & (root > 0), first / root, 0.0),
            "high": np.where((last > 0) & (below > 0), root / last, np.inf),
        }
    kept = np.isfinite(top)
    series = {
        name: variable("step", values[kept], name.replace("_", " "), "token")
        for name, values in found.items()
    }
    return xr.Dataset(series, coords={"step": frame.index.to_numpy()[kept]})


def _numbers(line: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a line by name, nested ones too."""
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and (prefix or name != "step"):
            yield prefix + name, value
