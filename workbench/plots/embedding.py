"""Figure of the embedding: which of its rows are wasted."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from workbench.plots.by_run import overlaid
from workbench.plots.style import BLUE, INK, axis_title, escaped, rounded, styled, token

NEAREST = 12  # pairs of rows that are listed


@overlaid
def embedding(ds: xr.Dataset) -> go.Figure:
    """Draw the rank of the rows of each kind of token, and the rows that are most alike.

    Above, a circle is the rank now and a hollow one that before training; a kind with fewer rows
    than channels is not judged and left out. Below, the pairs of rows of the largest cosine, with
    the number of times that each token occurs in training; beyond the line they are duplicates.

    Parameters
    ----------
    ds : Dataset
        Diagnostic of the same name.
    """
    judged = ds.isel(part=np.flatnonzero(np.isfinite(ds.effective_rank_ratio)))
    named = zip(judged.part.values, judged.rows.values, strict=True)
    names, pairs = [f"{escaped(part)}, n {count:.0f}" for part, count in named], _pairs(ds)
    figure = make_subplots(rows=2, vertical_spacing=0.16)
    for measure, name, symbol in (
        ("effective_rank_start", "before training", "circle-open"),
        ("effective_rank_ratio", "now", "circle"),
    ):
        if measure in judged:
            mark = {"color": BLUE, "size": 12, "symbol": symbol, "line": {"width": 2}}
            figure.add_scatter(x=rounded(judged[measure]), y=names, name=name, marker=mark)
    mark, at = {"color": BLUE, "size": 12, "symbol": "diamond"}, {"row": 2, "col": 1}
    cosines = rounded(list(pairs.values()))
    figure.add_scatter(x=cosines, y=list(pairs), marker=mark, showlegend=False, **at)
    figure.update_traces(mode="markers")
    line = {"color": INK, "width": 1, "dash": "dot"}
    figure.add_vline(x=ds.attrs["threshold"], line=line, **at)
    figure.update_xaxes(title=axis_title(ds.effective_rank_ratio), rangemode="tozero", row=1)
    figure.update_xaxes(title="cosine of two rows of the embedding [1]", row=2)
    figure.update_yaxes(type="category", autorange="reversed")
    return styled(figure, height=22 * (len(names) + len(pairs)) + 240)


def _pairs(ds: xr.Dataset) -> dict[str, float]:
    """Name the pairs of rows that are most alike, with their cosine."""
    cosine, found = np.nan_to_num(ds.twin_cosine.values, nan=-1), dict[str, float]()
    for at in np.argsort(-cosine, kind="stable")[: 2 * NEAREST]:
        both = sorted({int(at), int(ds.twin[at]) if "twin" in ds else int(at)})
        told = [token(ds.token.values[row], longest=14) for row in both]
        seen = [f"{ds['count'].values[row]:,.0f}" for row in both] if "count" in ds else []
        label = " ~ ".join(told) + (f"  ({', '.join(seen)} times)" if seen else "")
        found.setdefault(label, float(cosine[at]))
    return dict(list(found.items())[:NEAREST])
