"""Figures of one matrix: its singular values beside chance, and what truncating it costs."""

import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from workbench.plots.by_run import overlaid
from workbench.plots.style import BLUE, GREY, VERMILLION, axis_title, rounded, styled


@overlaid
def spectrum(ds: xr.Dataset) -> go.Figure:
    """Draw the singular values over the band of Gaussian matrices, and the rank over training.

    Parameters
    ----------
    ds : Dataset
        Diagnostic `effective_rank` of one matrix, with or without ``step``.
    """
    steps = ds if "step" in ds.dims else ds.expand_dims(step=[0])
    curves = steps.isel(singular=slice(min(int(ds.rows), int(ds.columns))))
    index = list(range(1, curves.sizes["singular"] + 1))
    last, begin = curves.isel(step=-1), f"step {steps.step.values[0]}"
    figure = make_subplots(cols=2, column_widths=[0.64, 0.36], horizontal_spacing=0.12)
    for values, name, look in (
        (last.singular_value_low, "", {"color": GREY, "width": 1}),
        (last.singular_value_high, "Gaussian of this size", {"color": GREY, "width": 1}),
        (curves.singular_value[0], begin, {"color": VERMILLION, "dash": "dot"}),
        (last.singular_value, f"step {last.step.item()}", {"color": BLUE, "width": 2}),
    ):
        fill = "tonexty" if name.startswith("Gaussian") else None
        figure.add_scatter(x=index, y=rounded(values), name=name, line=look, fill=fill)
    figure.data[0].showlegend = False
    ratios = rounded(steps.effective_rank_ratio)
    course = {"mode": "lines+markers", "line": {"color": BLUE}, "showlegend": False}
    figure.add_scatter(x=steps.step.values.tolist(), y=ratios, **course, row=1, col=2)
    figure.update_layout(
        xaxis={"title": "index, largest first [1]"},
        yaxis={"title": axis_title(ds.singular_value), "rangemode": "tozero"},
        xaxis2={"title": "optimizer step [1]"},
        yaxis2={"title": axis_title(ds.effective_rank_ratio, width=32)},
    )
    return styled(figure, height=360)


@overlaid
def truncation(ds: xr.Dataset) -> go.Figure:
    """Draw what each rank of a truncated matrix costs, the chosen one marked.

    Parameters
    ----------
    ds : Dataset
        Diagnostic of the same name; attr `chosen` is a rank among its settings.
    """
    ranks = ds.setting.values.tolist()
    figure = go.Figure(
        go.Scatter(
            x=ranks,
            y=rounded(ds.cost),
            error_y={"type": "data", "array": rounded(2 * ds.cost_standard_error)},
            mode="lines+markers+text",
            text=[f"{int(size):,} bytes" for size in ds.bytes.values],
            textposition=["top right"] * (len(ranks) - 1) + ["top left"],
            line={"color": BLUE, "width": 2},
            marker_size=[14 if rank == ds.attrs["chosen"] else 7 for rank in ranks],
            marker_symbol=["diamond" if r == ds.attrs["chosen"] else "circle" for r in ranks],
            hovertemplate="rank %{x}: %{y} bit/byte<extra></extra>",
        )
    )
    figure.add_hline(y=0, line={"color": GREY, "width": 1, "dash": "dot"})
    title = f"{axis_title(ds.cost, width=34)}<br>2 standard errors"
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title="directions kept [1]", rangemode="tozero")
    figure.update_yaxes(title=title, exponentformat="none")
    return styled(figure, height=320).update_layout(margin_t=48)
