"""Bytes against bits per byte, for every method of quantisation at several settings."""

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from workbench.diagnostics.sample import Rows
from workbench.quantization import METHODS, Method, Quantizer, with_values
from workbench.result import check, variable


def frontier(
    quantizer: Quantizer,
    rows: Rows,
    *,
    methods: Mapping[str, Method] = METHODS,
    watch: Callable[[str], object] = lambda method: None,
) -> xr.Dataset:
    """Quantise a whole model by every method, and measure what each costs on the same tokens.

    Parameters
    ----------
    quantizer : Quantizer
        Of a model and calibration text that has nothing of `rows`.
    rows : Rows
        See `Sample.rows`.
    methods : mapping
        By default all that `quantization.METHODS` has.
    watch : callable, optional
        Called with the name of each method before it is tried.

    Returns
    -------
    Dataset
        By ``setting``, method and setting in words, with the method as coordinate `method`:
        `bytes`, and the `gap` over the model as it is with its paired standard error [bit/byte].
        Attrs `exact`, its bits per byte, and `parameters`.
    """
    base = rows.losses(quantizer.model) / np.log(2)
    points: list[tuple[str, str, int, float, float]] = []
    for name, method in methods.items():
        watch(name)
        for setting in method.settings:
            tensors, size = method.make(quantizer, setting)
            added = rows.losses(with_values(quantizer.model, tensors)) / np.log(2) - base
            gap, error = (float(each) for each in rows.ratio(added))
            points.append((f"{name} {setting:g}", name, size, gap, error))
    labels, names, *measured = zip(*points, strict=True)
    told = {
        "bytes": ("bytes of the whole model", "byte"),
        "gap": ("bits per byte over the model as it is", "bit/byte"),
        "gap_standard_error": ("its paired standard error over groups", "bit/byte"),
    }
    data = {
        name: variable("setting", values, what, unit)
        for (name, (what, unit)), values in zip(told.items(), measured, strict=True)
    }
    weights = sum(each.numel() for each in quantizer.model.parameters())
    about = {"exact": float(rows.ratio(base)[0]), "parameters": weights}
    coords = {"setting": list(labels), "method": ("setting", list(names))}
    return check(xr.Dataset(data, coords, about))


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
        points = each.where(each.gap > 2 * each.gap_standard_error, drop=True).sortby("gap")
        known = len(points.gap) > 1 and points.gap[0] <= gap <= points.gap[-1]
        at, logs = points.bytes.values, np.log(points.gap.values)
        size[name] = float(np.interp(np.log(gap), logs, at)) if known else np.nan
    told = variable("setting", list(size.values()), f"bytes at {gap:g} bit/byte", "byte")
    return check(xr.Dataset({"bytes": told}, {"setting": list(size)}).sortby("bytes"))
