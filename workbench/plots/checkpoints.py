"""Figure of checkpoints: how many targets each profile owns over training, and the floor."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.plots.routing_audit import PALE, cells
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
    counts = ds.target_unique.values.astype(int)
    steps, names = ds.step.values.tolist(), [escaped(each) for each in ds.profile.values]
    text = [
        [f"{each * n:.0f}/{n}{'!' if low < 0 else ''}" for each, low in zip(*row, strict=True)]
        for *row, n in zip(owned, above, counts, strict=True)
    ]
    facts = [
        [
            f"<b>{name}</b>, step {step}<br>coverage less that of step 0: {a:+.2f}"
            for step, a in zip(steps, row, strict=True)
        ]
        for name, row in zip(names, above, strict=True)
    ]
    figure = cells(
        kinds.tolist(),
        text=text,
        facts=facts,
        rows=names,
        columns=[str(step) for step in steps],
        colours=STANDS,
        chosen=[steps] * len(names),
        sets="step",
    )
    figure.update_xaxes(title_text="optimizer step [1]; in the cells targets owned, k/n")
    return figure
