"""Every method at its settings, on one text; where lines cross a given cost."""

import numpy as np
import pytest
import torch
import xarray as xr

from workbench import readings
from workbench.diagnostics import as_rows, frontier
from workbench.quantization import METHODS, quantizer, with_values
from workbench.result import variable


@pytest.fixture
def made(tiny_network):
    ids = torch.randint(0, 257, (40, 16), generator=torch.Generator().manual_seed(0))
    return quantizer(tiny_network, ids, torch.ones_like(ids, dtype=torch.bool))


def test_gaps_and_bytes_are_those_of_each_method(made):
    ids = torch.randint(0, 257, (6, 17), generator=torch.Generator().manual_seed(1))
    rows = as_rows(ids[:, :-1], ids[:, 1:])
    chosen = {name: METHODS[name] for name in ("even slope", "official")}
    seen = []
    found = frontier(made, rows, methods=chosen, watch=seen.append)
    assert seen == list(chosen)
    for name, method in chosen.items():
        for setting in method.settings:
            tensors, size = method.make(made, setting)
            point = found.sel(setting=f"{name} {setting:g}")
            assert point.bytes == size and point.method == name
            losses = [
                rows.losses(each).mean() for each in (made.model, with_values(made.model, tensors))
            ]
            assert float(point.gap) == pytest.approx((losses[1] - losses[0]) / np.log(2), abs=1e-9)
    assert found.attrs["exact"] == pytest.approx(rows.losses(made.model).mean() / np.log(2))


def test_bytes_at_a_cost_lie_between_the_settings():
    size, gap = [100, 200, 300, 50, 60, 100], [0.04, 0.01, 0.0001, 0.2, 0.1, 0.01]
    error = [0.001, 0.001, 0.001, 0.01, 0.01, 0.001]
    data = {
        name: variable("setting", np.array(values, float), name, "byte")
        for name, values in (("bytes", size), ("gap", gap), ("gap_standard_error", error))
    }
    method = ["one"] * 3 + ["two"] * 3
    found = xr.Dataset(data, {"setting": [*"abcdef"], "method": ("setting", method)})
    bytes_ = readings.cheapest(found, 0.02).bytes
    assert list(bytes_.setting.values) == ["two", "one"]
    assert float(bytes_.sel(setting="one")) == pytest.approx(150)  # halfway in octaves
    assert np.isnan(readings.cheapest(found, 0.001).bytes.sel(setting="one")), (
        "there it is only noise"
    )
    said = readings.frontier(found)
    assert said.startswith("At 0.040 bit/byte two takes") and "one" in said
    noise = found.assign(gap_standard_error=found.gap)
    assert "noise" in readings.frontier(noise)
