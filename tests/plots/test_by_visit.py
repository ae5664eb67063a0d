"""Cells by visit: the numbers, the neutral colour, gaps, and every measure on hovering."""

import json

import numpy as np
import pytest
import xarray as xr

from workbench import plots
from workbench.result import variable


def stream(values):
    """Make a result with a measure of some (visit, role)."""
    values = np.asarray(values, dtype=float)
    coords = {
        "visit": range(len(values)),
        "role": ["residual_in", "attention_out", "feedforward_out"][: values.shape[1]],
    }
    data = {name: variable(("visit", "role"), values, name) for name in ("write_share", "norm")}
    data["growth"] = variable("visit", values[:, 0], "growth")
    return xr.Dataset(data, coords=coords)


def test_cells_are_the_values_and_hover_tells_the_rest():
    ds = stream([[0.1, 0.2], [0.3, 0.45678]])
    figure = plots.by_visit(ds, name="norm")
    (cells,) = figure.data
    assert [list(row) for row in cells.z] == [[0.1, 0.2], [0.3, 0.4568]]
    assert cells.text[1][1] == "0.457" and list(cells.y) == ["visit 0", "visit 1"]
    assert "write_share: 0.4568" in cells.hovertext[1][1] and "growth: 0.3" in cells.hovertext[1][1]
    assert cells.zmin + cells.zmax == pytest.approx(0.5, rel=1e-3), "neutral is the median"
    assert "norm [1]" in figure.layout.annotations[0].text


def test_sizes_are_coloured_by_their_ratio():
    figure = plots.residual(stream([[np.nan, 0.01, 1.0], [np.nan, 0.1, 10.0]]))
    (cells,) = figure.data
    assert list(cells.x) == ["attention_out", "feedforward_out"]
    steps = np.diff(np.sort(np.ravel([list(row) for row in cells.z])))
    np.testing.assert_allclose(steps, np.log(10), rtol=1e-3)
    assert cells.text[0][0] == "0.01", "the number itself is in the cell"


@pytest.mark.parametrize("log", [False, True])
def test_gaps_are_gaps(log):
    figure = plots.by_visit(stream([[np.nan, 0.2, 0.3]]), name="norm", log=log)
    assert figure.data[0].z[0][0] is None and figure.data[0].text[0][0] == ""
    empty = plots.by_visit(stream([[np.nan, np.nan]]), name="norm", log=log)
    assert list(empty.data[0].z[0]) == [None, None]


def test_chance_and_heads():
    values = variable(("visit", "head"), [[0.4, 1.0]], "entropy")
    figure = plots.attention(xr.Dataset({"entropy": values}, coords={"visit": [3], "head": [0, 1]}))
    assert list(figure.data[0].x) == ["head 0", "head 1"] and list(figure.data[0].y) == ["visit 3"]
    assert (figure.data[0].zmin, figure.data[0].zmax) == (0, 1)
    ratio = stream([[0.4, 0.9]]).rename(norm="activation_rank_ratio")
    assert "neutral at 1" in plots.activation(ratio).layout.annotations[0].text


def test_figure_is_plain_and_its_labels_inert():
    ds = stream([[0.1, 0.2]]).assign_coords(role=["<img src=x>", "$a$"])
    text = json.dumps(plots.by_visit(ds, name="norm").to_plotly_json())
    assert "<img" not in text and "$" not in text and "bdata" not in text
