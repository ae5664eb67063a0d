"""Figure of profiles by targets: which answers a profile owns, and which it merely gives."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from workbench.plots.routing_audit import PALE, cells, worst_first
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
    found = [_row(rows.isel(profile=index)) for index in range(rows.sizes["profile"])]
    width = max((len(each) for each in found), default=0)
    padded = [row + [(None, "", "", "")] * (width - len(row)) for row in found]
    figure = cells(
        [[each[0] for each in row] for row in padded],
        text=[[each[1] for each in row] for row in padded],
        facts=[[each[2] for each in row] for row in padded],
        rows=[escaped(each) for each in rows.profile.values],
        columns=[str(number + 1) for number in range(width)],
        colours=KINDS,
        chosen=[[each[3] for each in row] for row in padded],
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


def _row(point: xr.Dataset) -> list[tuple[int | None, str, str, str]]:
    """Return kind, text, facts and name of every target of a profile, the worst first."""
    asked, right = point.asked.values, point.right.values
    answered, can = point.answered.values, point.target_reachable.values
    shown, kinds = _order(point)
    name = point.profile.item()
    return [
        (
            int(kinds[at]),
            f"{token(point.target.values[at], longest=9)}<br>{right[at]:.0f}/{asked[at]:.0f}",
            f"<b>{escaped(name)}: {token(point.target.values[at])}</b><br>{right[at]:.0f} of "
            f"{asked[at]:.0f} records get it where due<br>given to {answered[at]:.0f} records in "
            f"all<br>{'can' if can[at] else 'CANNOT'} win, bias aside",
            f"{name}: {point.target.values[at]}",
        )
        for at in shown
    ]
