"""Figure of the target's rank after every visit."""

import plotly.graph_objects as go
import xarray as xr

from workbench.plots.by_run import overlaid
from workbench.plots.style import BLUE, FAINT, hover, rounded, styled


@overlaid
def logit_lens(ds: xr.Dataset) -> go.Figure:
    """Draw median and quartiles of the target's rank by visit, on a logarithmic axis.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    visits = ds.visit.values.tolist()
    facts = [hover(ds.isel(visit=at), title=f"after visit {n}") for at, n in enumerate(visits)]
    figure = go.Figure()
    lines = {"rank_high": "upper quartile", "rank_low": "lower quartile", "rank_median": "median"}
    for at, (name, told) in enumerate(lines.items()):
        figure.add_scatter(x=visits, y=rounded(ds[name].values), name=told, hovertext=facts)
        fill = {"fill": "tonexty", "fillcolor": FAINT} if at == 1 else {}
        dash = {"color": BLUE, "dash": "solid" if at == 2 else "dot"}
        figure.data[-1].update(hoverinfo="text", line=dash, mode="lines+markers", **fill)
    figure.update_xaxes(title_text="visit after which the stream is read [1]", dtick=1)
    figure.update_yaxes(type="log", title_text="rank of the target, 1 is best [1]")
    return styled(figure, height=320)
