"""Figure of checkpoints: how many targets each profile owns over training, and the floor."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.plots.routing_audit import PALE, Cell, cells
from workbench.plots.style import BLUE, SKY, VERMILLION, escaped

STANDS = {  # a checkpoint's coverage against that of step 0
    "owns all": BLUE,
    "above step 0": SKY,
    "as step 0": PALE,
    "BELOW step 0": VERMILLION,
}


def checkpoints(ds: xr.Dataset) -> go.Figure:
    """Draw a row a profile and a column a checkpoint: targets owned, k/n; ! below the floor.

    Clicking a cell chooses its checkpoint.

    Parameters
    ----------
    ds : Dataset
        Result of `audit_checkpoints` in `diagnostics`.
    """
    owned, above = ds.owned_by_step.values.T, ds.above_floor.values.T
    kinds = np.select([above < 0, owned >= 1, above > 0], [3, 0, 1], default=2)
    steps, table = ds.step.values.tolist(), []
    for at, name in enumerate(escaped(each) for each in ds.profile.values):
        n, row = int(ds.target_unique[at]), []
        for step, kind, share, low in zip(steps, kinds[at], owned[at], above[at], strict=True):
            text = f"{share * n:.0f}/{n}{'!' if low < 0 else ''}"
            facts = f"<b>{name}</b>, step {step}<br>coverage less that of step 0: {low:+.2f}"
            row.append(Cell(int(kind), text, facts, step))
        table.append(row)
    figure = cells(
        table,
        rows=[escaped(each) for each in ds.profile.values],
        columns=[str(step) for step in steps],
        colours=STANDS,
        sets="step",
    )
    figure.update_xaxes(title_text="optimizer step [1]; in the cells targets owned, k/n")
    return figure
