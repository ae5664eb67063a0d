"""Figures of losses are read as data: what is drawn, in which order, and what a click gives."""

import json

import numpy as np
import pytest
import xarray as xr
from token_tables import make_table

from workbench import plots
from workbench.diagnostics import calibration, loss_cells, position_loss, token_loss
from workbench.result import variable

HOSTILE = ["<script>alert(1)</script>", "$x^2$", " the", "\n", "\x1b[31m", "%{x}", "\u202eabc"]


def strip(n=30):
    """Rows of a strip whose tokens are hostile."""
    names = np.array([HOSTILE[at % len(HOSTILE)] for at in range(n)])
    columns = ("probability", "rank", "top1_probability", "excess", "position", "offset", "nll")
    data = {name: variable("token", np.arange(n) + 1.0, name) for name in columns}
    data["excess"] = variable("token", np.linspace(-4, 4, n), "loss above the reference", "bit")
    text = {name: ("token", names) for name in ("target", "winner", "kind", "before")}
    return xr.Dataset(data, coords=text)


def test_classes_are_sorted_by_what_can_be_won_or_by_all():
    ds = token_loss(make_table())
    for sort, name in (("recoverable", "excess"), ("share", "contribution")):
        figure = plots.token_loss(ds, sort=sort, clicks="token_class")
        bars = next(trace for trace in figure.data if trace.type == "bar")
        order = np.argsort(-ds[name].where(ds.tokens > 0, -9).values)[: len(bars.y)]
        assert [label.split()[0] for label in bars.y] == list(ds.token_class.values[order])
        np.testing.assert_allclose(bars.x, ds[name].values[order], rtol=1e-3)
        assert bars.customdata[0] == ds.token_class.values[order[0]]
        low, high = figure.layout.xaxis2.range
        assert low <= min(bars.x) and high >= max(bars.x)
    changed = plots.token_loss(ds.assign_attrs(compared=1, run="new", reference="old"))
    bars = next(trace for trace in changed.data if trace.type == "bar")
    assert np.all(np.diff(np.abs(bars.x)) <= 0), "a difference: the largest of either sign first"
    assert changed.layout.xaxis2.title.text.startswith("less old")
    assert "of all loss of new" in changed.layout.xaxis.title.text
    assert "above counting: drawn at random" in plots.token_loss(ds).layout.xaxis2.title.text


def test_parts_leave_out_cells_of_few_tokens():
    ds = loss_cells(make_table(), ["decile", "repetition"])
    ds.tokens[0, 0] = 3
    figure = plots.parts(ds)
    bars = figure.data[0]
    assert len(bars.y) == int((ds.tokens >= 50).sum())
    assert not any(label.startswith("decile 0, new") for label in bars.y)
    assert np.all(np.diff(np.abs(bars.x)) <= 0)


def test_reliability_and_positions_are_the_measured_points():
    table = make_table()
    ds = calibration(table)
    curve = plots.calibration(ds, chosen="digit").data[1]
    here = ds.sel(token_class="digit")
    here = here.isel(bin=np.flatnonzero(here.tokens > 0))
    np.testing.assert_allclose(curve.x, here.confidence, rtol=1e-3)
    np.testing.assert_allclose(curve.y, here.accuracy, rtol=1e-3, atol=1e-9)
    places = position_loss(table)
    under, model = plots.position_loss(places).data
    np.testing.assert_allclose(model.y, places.loss, rtol=1e-3)
    frame = table.to_dataframe()
    late = frame[frame.position >= 16]
    reference = (late.nll - late.excess * np.log(2)).mean()
    assert under.y[-1] == pytest.approx(reference, rel=1e-3)


def test_text_is_drawn_in_reading_order_and_is_inert():
    ds = strip(30)
    heat = plots.text_strip(ds).data[0]
    assert len(heat.z) == 3 and [len(row) for row in heat.z] == [14] * 3
    drawn = [each for row in heat.z for each in row]
    np.testing.assert_allclose(drawn[:30], ds.excess.values, rtol=1e-3)
    assert drawn[30:] == [None] * 12
    assert heat.customdata[1][0] == 15 and heat.customdata[2][-1] == 0
    assert heat.meta == {"sets": "token"}
    spec = json.dumps(plots.text_strip(ds).to_plotly_json())
    assert "<script" not in spec and "$" not in spec and "\\u001b" not in spec
    assert len(plots.text_strip(ds.isel(token=slice(0))).data[0].z) == 1


def test_a_single_token_is_one_cell_of_the_usual_size_and_has_a_scale():
    one = strip(30).isel(token=[3])
    one.excess[:] = 0.0
    figure = plots.text_strip(one)
    heat = figure.data[0]
    assert (heat.zmin, heat.zmax) == (-1, 1) and heat.z[0][0] == 0 and heat.customdata[0][0] == 4
    low, high = figure.layout.yaxis.range
    assert low - high == 5, "a line is as high as in a whole text"
