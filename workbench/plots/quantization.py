"""Figures of an artifact: what foretells its cost, what survives it, and what bytes buy."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from workbench.plots.by_run import overlaid
from workbench.plots.rank_corners import by_role
from workbench.plots.style import (
    BLUE,
    GREY,
    SERIES,
    VERMILLION,
    axis_title,
    escaped,
    rounded,
    styled,
)
from workbench.readings.frontier import above_noise

LEAST = 1e-12  # error that is drawn: exact matrices stand at 120 dB
SYMBOLS = ("circle", "square", "diamond")  # of the next methods, once colours are used up
DOTTED = {"color": GREY, "width": 1, "dash": "dot"}


@overlaid
def quantization(ds: xr.Dataset, *, along: str = "predicted_cost", chosen: str = "") -> go.Figure:
    """Draw what each matrix costs alone against what was predicted, and its two errors.

    Left: bars are two standard errors; a hollow point costs nothing beyond noise, and stands at the
    foot of the axis if it costs less than that shows. Right: the error of what a matrix returns
    against that of its weights. On the dotted line both are the same. The number at a point is its
    block. Clicking it sets the control ``matrix``.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    along : str
        What cost is drawn against: a variable by ``matrix`` that is positive, such as ``bytes``.
    chosen : str
        Name of a matrix to be drawn larger.
    """
    cost, wide = ds.cost.values, 2 * np.nan_to_num(ds.cost_standard_error.values)
    foot = float(np.median(wide)) / 4 or 1e-6
    shown = np.maximum(cost, foot)
    down = shown - np.clip(cost - wide, foot, shown)
    bars = {"error_y": {"array": np.maximum(cost + wide - shown, 0), "arrayminus": down}}
    errors = [np.maximum(ds[f"{name}_error"].values, LEAST) for name in ("weight", "output")]
    signal = [-10 * np.log10(each) for each in errors]
    facts = ds.drop_dims([dim for dim in ds.dims if dim != "matrix"])
    facts = facts[[name for name in facts if facts[name].dims]]
    look = {"hollow": cost <= wide, "chosen": chosen}
    figure = make_subplots(1, 2, horizontal_spacing=0.13)
    for col, places, more in ((1, (ds[along].values, shown), bars), (2, signal, {})):
        figure.add_traces(by_role(facts, places, bars=more, **look), rows=1, cols=col)
        if col == 2 or along == "predicted_cost":
            both = np.concatenate(places)
            ends = rounded(
                [np.nanmin(np.maximum(both, foot) if col == 1 else both), np.nanmax(both)]
            )
            line = {"mode": "lines", "line": DOTTED, "hoverinfo": "skip", "showlegend": False}
            figure.add_scatter(x=ends, y=ends, **line, row=1, col=col)
    figure.for_each_trace(lambda trace: trace.update(showlegend=False), selector={"xaxis": "x2"})
    power = {"type": "log", "dtick": "D2", "exponentformat": "none"}
    figure.update_xaxes(title_text=axis_title(ds[along], width=44), **power, col=1)
    figure.update_yaxes(title_text=axis_title(ds.cost, width=44), **power, col=1)
    figure.update_xaxes(title_text="signal over error of the weights [dB]", col=2)
    figure.update_yaxes(title_text="signal over error of the outputs [dB]", col=2)
    return styled(figure, height=460)


@overlaid
def survival(ds: xr.Dataset) -> go.Figure:
    """Draw which share of first places is lost, by margin, and what margins foretell.

    Bars are 95 % Wilson intervals; the lines are the two-way formula, which undercounts where many
    rivals are near.
    """
    bins = [f"{low:g} to {high:g}" for low, high in zip(ds.low.values, ds.high.values, strict=True)]
    figure = go.Figure()
    for part, ink in (("all", BLUE), ("rare", VERMILLION)):
        one = ds.sel(part=part)
        n = one.kept_first.where(one.kept_first > 0).astype(float).values
        share, z = one.flipped.values / n, 1.96
        middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        reach = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + (z / n) ** 2 / 4)
        bars = {"array": rounded(np.maximum(middle + reach - share, 0)), "color": ink}
        bars["arrayminus"] = rounded(np.maximum(share - middle + reach, 0))
        facts = [f"{k:.0f} of {m} lost" for k, m in zip(one.flipped, one.kept_first, strict=True)]
        look = {"mode": "markers", "name": f"{part}, lost", "hovertext": facts, "error_y": bars}
        figure.add_scatter(x=bins, y=rounded(share), marker={"size": 9, "color": ink}, **look)
        look = {"mode": "lines", "name": f"{part}, foretold", "line": {"color": ink}}
        figure.add_scatter(x=bins, y=rounded(one.flip_predicted), **look)
    title = f"margin over the best rival, in units of the noise of {float(ds.noise[0]):.2f} nat [1]"
    figure.update_layout(xaxis={"title": title, "type": "category"})
    figure.update_yaxes(title_text="share of first places lost [1]", rangemode="tozero")
    return styled(figure, height=360)


@overlaid
def frontier(ds: xr.Dataset) -> go.Figure:
    """Draw what every artifact costs against its bytes; of methods on a logarithmic axis.

    The curve is the slope of rate-distortion theory, 6.02 dB a bit: another bit for each weight
    divides the gap of the smallest artifact by four. Of a run's artifacts, the dotted line is the
    float model.

    Parameters
    ----------
    ds : Dataset
        Of `readings.artifacts`, or of `diagnostics.frontier`: then with a colour and a mark for
        each method, where its cost is more than noise.
    """
    ds, by_method = ds.sortby("bytes"), "method" in ds.coords
    if by_method:
        ds = above_noise(ds)
    if not ds.sizes["setting"]:
        figure = styled(go.Figure(), height=380)
        return figure.update_layout(title_text="no method costs more than noise on this text")
    exact, size = 0.0 if by_method else ds.attrs["exact"], ds.bytes.values
    first = ds.isel(setting=int(np.argmin(ds.gap.values)) if by_method else 0)
    curve = np.linspace(size[0], size[-1] + ds.attrs["parameters"] / 16, 40)
    gaps = float(first.gap) * 4.0 ** (-8 * (curve - float(first.bytes)) / ds.attrs["parameters"])
    look = {"mode": "lines", "line": {"color": GREY}, "hoverinfo": "skip", "name": "6.02 dB a bit"}
    figure = go.Figure(go.Scatter(x=rounded(curve, 9), y=rounded(exact + gaps, 6), **look))
    groups = list(ds.groupby("method")) if by_method else [("artifacts", ds)]
    for number, (name, each) in enumerate(groups):
        words = [escaped(setting) for setting in each.setting.values]
        bars = {"array": rounded(2 * each.gap_standard_error)}
        look = {"mode": "lines+markers" if by_method else "markers+text", "text": words}
        look |= {"textposition": "top right", "name": escaped(name)}
        look |= {"marker": {"size": 9, "symbol": SYMBOLS[number // len(SERIES) % len(SYMBOLS)]}}
        look |= {"line": {"color": SERIES[number % len(SERIES)]}}
        x, y = rounded(each.bytes, 9), rounded(exact + each.gap, 6)
        figure.add_scatter(x=x, y=y, error_y=bars, **look)
    title = "bits per byte over the float model [bit/byte]"
    if not by_method:
        said = {"annotation_text": "the float model", "annotation_position": "bottom left"}
        figure.add_hline(y=exact, line=DOTTED, **said)
        title = "bits per byte of the text [bit/byte]"
    figure.update_xaxes(title_text="bytes of the artifact [byte]", exponentformat="none")
    figure.update_yaxes(title_text=title, exponentformat="none")
    if by_method:
        figure.update_yaxes(type="log")
    return styled(figure, height=480 if by_method else 380)
