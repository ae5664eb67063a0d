"""The static twin says what its figure says, in plain SVG."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import plotly.graph_objects as go
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from workbench import plots
from workbench.folder import PROJECT
from workbench.plots.style import styled
from workbench.plots.twin import _Sheet, svg
from workbench.plots.twin_traces import colour, plain, shades

SVG = "{http://www.w3.org/2000/svg}"
NOUNS = ("effective_rank", "value_residual", "logit_prior", "routing_audit", "token_loss")


def texts(drawn: str) -> list[str]:
    """Return what is written, in order."""
    return ["".join(each.itertext()) for each in ET.fromstring(drawn).iter(f"{SVG}text")]


def places(drawn: str, text: str) -> list[tuple[float, float]]:
    """Return where a text is written, in pixels from the upper left."""
    found = []
    for each in ET.fromstring(drawn).iter(f"{SVG}text"):
        if "".join(each.itertext()) == text:
            at = re.search(r"translate\(([\d.]+) ([\d.]+)\)", each.get("transform", ""))
            spot = at.groups() if at else (each.get("x"), each.get("y"))
            found.append((float(spot[0]), float(spot[1])))
    return found


def lines(drawn: str) -> list[list[tuple[float, float]]]:
    """Return the corners of each path that is drawn and not filled."""
    found = []
    for each in ET.fromstring(drawn).iter(f"{SVG}path"):
        if "fill: none" in each.get("style", ""):
            pairs = re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", each.get("d", ""))
            found.append([(float(x), float(y)) for x, y in pairs])
    return found


@pytest.mark.parametrize("noun", NOUNS)
def test_twin_of_each_figure_is_small_safe_and_the_same_twice(synthetic, noun):
    figure = getattr(plots, noun)(synthetic[noun](planted=True))
    drawn = svg([figure])
    assert drawn == svg([figure]), "no date, no random id"
    assert drawn.startswith("<svg") and len(drawn.encode()) < 60_000
    tags = {each.tag.removeprefix(SVG) for each in ET.fromstring(drawn).iter()}
    assert tags <= {"svg", "g", "path", "use", "text", "tspan", "defs", "style", "rect", "clipPath"}
    assert not re.search(r"(?<!xmlns)(?<!xlink)=\"https?:|url\((?!#)|NaN|nan", drawn)
    written = " ".join(texts(drawn))
    names = [plain(trace.name) for trace in figure.data if trace.name and trace.showlegend]
    assert all(name in written for name in names)
    assert "<br>" not in written and "&lt;" not in written and "<b>" not in written


def test_every_category_axis_title_and_cell_is_written(synthetic):
    figure = plots.effective_rank(synthetic["effective_rank"](planted=True, steps=[0, 50]))
    written = texts(svg([figure]))
    assert {"query", "block 3", "0.31", "optimizer step [1]"} <= set(written)
    assert written.count("query") == 2, "a column of cells and a line of the legend"


def test_a_line_is_where_its_numbers_are():
    y = [1.0, 3.0, 2.0]
    figure = go.Figure(go.Scatter(x=[0, 1, 2], y=y, mode="lines"))
    (line,) = [each for each in lines(svg([figure])) if len(each) == 3]
    heights = np.array([at for _, at in line])
    assert np.corrcoef(heights, y)[0, 1] == pytest.approx(-1, abs=1e-3), "up is up"
    steps = np.diff([at for at, _ in line])
    assert steps[0] == pytest.approx(steps[1], abs=0.2)


def test_log_axes_are_even_in_decades_and_reversed_ones_are_upside_down():
    trace = go.Scatter(x=[1, 10, 100], y=["a", "b", "c"], mode="lines")
    figure = go.Figure(trace).update_xaxes(type="log").update_yaxes(autorange="reversed")
    drawn = svg([figure])
    (line,) = [each for each in lines(drawn) if len(each) == 3]
    steps = np.diff([at for at, _ in line])
    assert steps[0] == pytest.approx(steps[1], abs=0.2)
    assert places(drawn, "a")[0][1] < places(drawn, "c")[0][1]


@pytest.mark.parametrize("mode", ["stack", "relative"])
def test_bars_are_piled_up_on_their_side_of_zero(mode):
    bars = [go.Bar(x=["p", "q"], y=each) for each in ([1.0, 2.0], [3.0, -4.0], [5.0, -6.0])]
    spec = styled(go.Figure(bars, {"barmode": mode}), height=300).to_plotly_json()
    canvas = Figure()
    FigureCanvasAgg(canvas)
    sheet = _Sheet(canvas, spec, np.array([0, 0, 640, 480]))
    drawn = [(each.get_y(), each.get_height()) for each in sheet.axes["x", "y"].patches]
    assert drawn == [(0, 1), (0, 2), (1, 3), (0, -4), (4, 5), (-4, -6)]


def sheet_of(figure):
    """Draw a figure alone."""
    canvas = Figure()
    FigureCanvasAgg(canvas)
    return _Sheet(canvas, figure.to_plotly_json(), np.array([0, 0, 640, 480]))


def test_bars_of_a_waterfall_begin_where_they_say():
    bars = [go.Bar(y=["p", "q"], x=[1.0, -0.5], base=base, orientation="h") for base in ([0, 1], 2)]
    drawn = sheet_of(go.Figure(bars, {"barmode": "group"})).axes["x", "y"].patches
    assert [(each.get_x(), each.get_width()) for each in drawn] == [
        (0, 1),
        (1, -0.5),
        (2, 1),
        (2, -0.5),
    ]


def test_ticks_do_not_widen_an_axis_and_shapes_do():
    figure = go.Figure(go.Scatter(x=[0.9, 1.0], y=["a", "b"], mode="markers"))
    figure.update_xaxes(tickvals=[-5, 0.95, 5], ticktext=["low", "here", "high"])
    assert not places(svg([figure]), "high") and places(svg([figure]), "here")
    low, high = sheet_of(figure).axes["x", "y"].get_xlim()
    assert 0.8 < low < 0.9 and 1.0 < high < 1.1
    figure.add_vline(x=0.5)
    assert sheet_of(figure).axes["x", "y"].get_xlim()[0] == 0.5


def test_bars_side_by_side_do_not_overlap():
    bars = [go.Bar(x=["p", "q"], y=[1, 2], text=["one", "two"], name=str(n)) for n in range(2)]
    left, right = places(svg([go.Figure(bars)]), "one")
    assert right[0] - left[0] > 50


def test_many_points_keep_their_extremes_and_large_heatmaps_say_that_they_are_means():
    y = np.sin(np.arange(50_000) / 900)
    y[31_234] = 9.0
    drawn = svg([go.Figure(go.Scatter(y=y.tolist(), mode="lines"))])
    assert len(drawn) < 60_000
    longest = max(lines(drawn), key=len)
    assert min(at for _, at in longest) < np.median([at for _, at in longest]) - 100
    cells = np.arange(4096.0).reshape(64, 64).tolist()
    drawn = svg([go.Figure(go.Heatmap(z=cells))])
    assert len(drawn) < 60_000 and "drawn coarsely: a cell is the mean of 4 by 4" in texts(drawn)


def test_gaps_stay_gaps():
    figure = go.Figure(go.Scatter(y=[1, 2, None, 3, 4], mode="lines"))
    drawn = svg([figure])
    assert re.search(r"M [\d. ]+\nL [\d. ]+\nM [\d. ]+\nL [\d. ]+\n", drawn), "two strokes"
    heat = go.Figure(go.Heatmap(z=[[0.0, None], [None, 1.0]], showscale=False))
    fills = re.findall(r"fill: (#[0-9a-f]{6})\"", svg([heat]))
    assert len(set(fills) - {"#767b84"}) == 2, "what was not measured has no colour"


def test_hostile_labels_are_text(hostile="</text><script>alert(1)</script> $x^2$ &amp; \x1b\u4e2d"):
    shown = plots.style.token(hostile, longest=80)
    figure = go.Figure(go.Bar(x=[shown], y=[1], name=shown, showlegend=True))
    figure.add_annotation(text=f"<b>{shown}</b>", x=0, y=1, showarrow=False)
    drawn = svg([figure])
    assert "<script" not in drawn
    assert sum("</text><script>alert(1)</script>" in each for each in texts(drawn)) == 3
    assert any("$x^2$" in each for each in texts(drawn)), "no formula"


def test_the_look_of_other_figures_is_left_alone():
    before = dict(matplotlib.rcParams)
    svg([go.Figure(go.Scatter(y=[1, 2]))])
    assert dict(matplotlib.rcParams) == before


def test_figures_are_stacked_and_an_unknown_trace_is_named():
    one = styled(go.Figure(go.Scatter(y=[1, 2], mode="lines")), height=200)
    two = styled(go.Figure(go.Pie(values=[1, 2])), height=300)
    drawn = svg([one, two])
    assert 'viewBox="0 0 900 500"' in drawn
    assert any("a pie, which only the interactive figure shows" in each for each in texts(drawn))


def test_tables_shapes_notes_and_error_bars():
    figure = go.Figure(
        go.Table(header={"values": ["<b>what</b>", "n"]}, cells={"values": [["<&lt;"], [3]]})
    )
    assert texts(svg([figure])) == ["what", "<<", "n", "3"]
    bars = {"type": "data", "array": [0.5, 0.5]}
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4], error_y=bars, mode="markers"))
    before = len(lines(svg([figure])))
    figure.add_hline(y=3.5).add_annotation(text="here", x=2, y=4, ax=0, ay=-40)
    drawn = svg([figure])
    assert len(lines(drawn)) >= before + 2
    assert places(drawn, "here")


def test_colours_are_those_of_the_scale():
    assert colour("rgba(255,0,51,0.5)") == (1.0, 0.0, 0.2, 0.5)
    scale = {"colorscale": [[0, "#000000"], [1, "#ffffff"]], "zmin": 0, "zmax": 2}
    shade = shades(np.array([0.0, 1.0, 2.0]), scale, {})
    np.testing.assert_allclose(shade.to_rgba([0.0, 1.0, 2.0])[:, 0], [0, 0.5, 1], atol=0.02)
    around = shades(np.array([0.5, 1.1]), {"coloraxis": "c"}, {"c": {"cmid": 1}})
    assert (around.norm.vmin, around.norm.vmax) == (0.5, 1.5)


def test_matplotlib_is_not_loaded_before_something_is_shown():
    program = (
        "import sys, workbench.plots, workbench.plots.twin; print('matplotlib' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "False\n", done.stderr
