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
