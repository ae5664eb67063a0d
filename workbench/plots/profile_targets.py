"""Figure of profiles by targets: which answers a profile owns, and which it merely gives."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from workbench.plots.routing_audit import PALE, Cell, cells, worst_first
from workbench.plots.style import BLUE, ORANGE, SKY, escaped, token

KINDS = {  # of a target within its profile
    "owned": BLUE,
    "owned in part": SKY,
    "merely covered": ORANGE,
    "never given": PALE,
}
MOST = 24  # targets of a profile that are drawn, the worst first


def profile_targets(ds: xr.Dataset) -> go.Figure:
    """Draw a row a profile and a cell a target: how many of its records get it, k/n.

    Clicking a cell chooses its records.

    Parameters
    ----------
    ds : Dataset
        Result of `routing_audit`.
    """
    rows = worst_first(ds)
    table = [_row(rows.isel(profile=index)) for index in range(rows.sizes["profile"])]
    width = max((len(each) for each in table), default=0)
    figure = cells(
        table,
        rows=[escaped(each) for each in rows.profile.values],
        columns=[str(number + 1) for number in range(width)],
        colours=KINDS,
        sets="cell",
    )
    figure.update_xaxes(
        title_text="targets, worst first; share of their records that get it, k/n [1]"
    )
    return figure


def cell_names(ds: xr.Dataset) -> dict[str, tuple[str, str]]:
    """Name the cells as the control ``cell`` does: profile and target by name, the worst first."""
    rows = worst_first(ds)
    found = {}
    for index, profile in enumerate(rows.profile.values.tolist()):
        point = rows.isel(profile=index)
        for at in _order(point)[0]:
            found[f"{profile}: {point.target.values[at]}"] = (profile, str(point.target.values[at]))
    return found


def _order(point: xr.Dataset) -> tuple[list[int], NDArray[np.int64]]:
    """Sort the targets that a profile asks for, the worst first; and give the kind of each."""
    asked, right = point.asked.values, point.right.values
    kinds = np.select([right == asked, right > 0, point.answered.values > 0], [0, 1, 2], default=3)
    order = np.lexsort((right / np.where(asked > 0, asked, 1), -kinds))
    return [int(at) for at in order if asked[at] > 0][:MOST], kinds


def _row(point: xr.Dataset) -> list[Cell]:
    """Return the cells of a profile, a target each, the worst first."""
    shown, kinds = _order(point)
    profile, row = point.profile.item(), []
    for at in shown:
        target = point.isel(target=at)
        name, share = target.target.item(), f"{target.right:.0f}/{target.asked:.0f}"
        facts = (
            f"<b>{escaped(profile)}: {token(name)}</b><br>{target.right:.0f} of "
            f"{target.asked:.0f} records get it where due<br>given to {target.answered:.0f} "
            f"records in all<br>{'can' if target.target_reachable else 'CANNOT'} win, bias aside"
        )
        text = f"{token(name, longest=9)}<br>{share}"
        row.append(Cell(int(kinds[at]), text, facts, f"{profile}: {name}"))
    return row
