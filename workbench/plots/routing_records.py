"""Table of records: what each prompt asks for, what it gets, and what else was likely."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.plots.style import FAINT, INK, escaped, styled, token

MOST = 40  # records that are listed
HEAD = ("prompt", "answer", "P", "lead", "rank", "likeliest", "nearest centroid")


def routing_records(ds: xr.Dataset) -> go.Figure:
    """List records: prompt, answer, the target's standing, likeliest answers, nearest centroid.

    Parameters
    ----------
    ds : Dataset
        Result of the function of the same name in `diagnostics`.
    """
    rows = [_row(ds.isel(record=at)) for at in range(min(ds.sizes["record"], MOST))]
    plain = {"fill": {"color": "rgba(0,0,0,0)"}, "line": {"color": FAINT}, "align": "left"}
    plain["font"] = {"color": INK}
    table = go.Table(
        header={"values": [f"<b>{name}</b>" for name in HEAD], **plain},
        cells={"values": [list(each) for each in zip(*rows, strict=True)], "height": 26, **plain},
        columnwidth=[26, 10, 7, 7, 7, 42, 20],
    )
    figure = go.Figure(table, {"showlegend": False})
    said = "P: probability of the target; lead: that less the best other's; "
    said += "distances over the root mean square norm [1]"
    figure.add_annotation(text=said, x=0, y=1.0, xanchor="left", yanchor="bottom", showarrow=False)
    figure.update_xaxes(visible=False).update_yaxes(visible=False)
    return styled(figure, height=150 + 46 * len(rows)).update_layout(margin_t=40)


def _row(record: xr.Dataset) -> tuple[str, ...]:
    """Write the cells of one record."""
    chances = zip(record.likeliest.values, record.likeliest_probability.values, strict=True)
    distance = np.nan_to_num(record.centroid_distance.values, nan=np.inf)
    own = distance[record.part.values == record.target.item()]
    nearest = record.part.values[distance.argmin()]
    return (
        f"{escaped(record.prompt.item())} {token(record.target.item())}",
        token(record.winner.item()),
        f"{record.probability:.3f}",
        f"{record.lead:+.3f}",
        f"{record['rank']:.0f}",
        ", ".join(f"{token(text)} {chance:.2f}" for text, chance in chances),
        f"{token(nearest)} {distance.min():.2f} (own {own.min():.2f})",
    )
