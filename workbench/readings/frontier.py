"""What bytes buy: artifacts of a run beside theory, and methods beside each other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from workbench.readings.notation import with_error
from workbench.readings.phrasing import capital
from workbench.result import check, variable


def artifacts(record: Mapping[str, Any]) -> xr.Dataset:
    """Collect the artifacts in a run's record, smallest first.

    Returns
    -------
    Dataset
        By ``setting``, their names: `bytes`, and the `gap` in bits per byte over the float model
        with its standard error. Attrs `exact`, its bits per byte, and `parameters`.
    """
    made = sorted(record["artifacts"].items(), key=lambda each: each[1]["bytes"])
    units = {"bytes": "byte", "gap": "bit/byte", "gap_standard_error": "bit/byte"}
    data = {
        name: variable("setting", np.array([e.get(name) for _, e in made], float), name, unit)
        for name, unit in units.items()
    }
    about = {"exact": record["evaluation"]["bits_per_byte"], "parameters": record["parameters"]}
    return check(xr.Dataset(data, {"setting": [name for name, _ in made]}, about))


def above_noise(ds: xr.Dataset) -> xr.Dataset:
    """Keep the points that cost more than twice their error, or whose error is not known."""
    return ds.where((ds.gap > 0) & ~(ds.gap <= 2 * ds.gap_standard_error), drop=True)


def cheapest(found: xr.Dataset, gap: float) -> xr.Dataset:
    """Interpolate the bytes at which each method costs `gap`, between its settings.

    The logarithm of the gap is taken as linear in the bytes, as theory has it.

    Returns
    -------
    Dataset
        By ``setting``, now a method each: `bytes`, NaN where its settings do not reach that far
        or cost no more than noise.
    """
    size = {}
    for name, each in found.groupby("method"):
        points = above_noise(each).sortby("gap")
        known = len(points.gap) > 1 and points.gap[0] <= gap <= points.gap[-1]
        at, logs = points.bytes.values, np.log(points.gap.values)
        size[name] = float(np.interp(np.log(gap), logs, at)) if known else np.nan
    told = variable("setting", list(size.values()), f"bytes at {gap:g} bit/byte", "byte")
    return check(xr.Dataset({"bytes": told}, {"setting": list(size)}).sortby("bytes"))


def frontier(ds: xr.Dataset) -> str:
    """Compare how the gap falls with bytes to what theory gives, or methods at an equal gap."""
    if "method" in ds.coords:
        return _methods(ds)
    ends = [ds.sortby("bytes").isel(setting=at) for at in (0, -1)]
    told = [f"{e.setting.item()} ({int(e.bytes):,} bytes) costs {_cost(e)}" for e in ends]
    bits = 8 * float(ends[1].bytes - ends[0].bytes) / ds.attrs["parameters"]
    if bits == 0 or not all(float(each.gap) > 0 for each in ends):
        return f"{capital(told[0])}: no slope to compare with theory."
    slope = 10 * np.log10(float(ends[0].gap / ends[1].gap)) / bits
    return f"{capital(' and '.join(told))}: {slope:.1f} dB for each bit a weight, 6.02 in theory."


def _methods(ds: xr.Dataset) -> str:
    """Order the methods by bytes, at the middle one of all costs that are more than noise."""
    known = above_noise(ds)
    if known.sizes["setting"] < 2:
        return "No method costs more than noise on this text: compare on more of it."
    gap = float(known.gap.median())
    order = cheapest(ds, gap).dropna("setting")
    if order.sizes["setting"] < 2:
        return f"At {gap:.3f} bit/byte there are not two methods to compare."
    first, *others = order.setting.values
    size = {name: float(order.bytes.sel(setting=name)) for name in order.setting.values}
    told = [f"{name} {size[name] / size[first]:.2f} times as many" for name in others]
    return f"At {gap:.3f} bit/byte {first} takes {size[first]:,.0f} bytes, {', '.join(told)}."


def _cost(point: xr.Dataset) -> str:
    """Write a gap with its error."""
    return f"{with_error(point.gap, point.gap_standard_error, sign='+')} bit/byte"
