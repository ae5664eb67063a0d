"""Figure of the routing audit: how far each profile climbs before something is red."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.plots.style import BLUE, GREY, INK, VERMILLION, escaped, hover, rounded, styled
from workbench.readings import judgeable

PALE = "#c9cdd3"  # opaque, so that a dark page leaves the words on it readable
LOOKS = {  # state of a rung: colour, letter
    "green": (BLUE, "ok"),
    "red": (VERMILLION, "RED"),
    "not able to judge": (GREY, "?"),
    "not reached": (PALE, "-"),
}


def routing_audit(ds: xr.Dataset) -> go.Figure:
    """Draw a row a profile, worst first, and a column a check, up to the first that is red.

    Of two runs (`result.difference`) it draws the differences of accuracy and of owned targets.

    Parameters
    ----------
    ds : Dataset
        Result of the diagnostic of the same name.
    """
    if ds.attrs.get("compared"):
        return _compared(ds)
    if not ds.sizes.get("profile"):
        return styled(go.Figure(), height=80)
    rows = worst_first(ds)
    points = [rows.isel(profile=index) for index in range(rows.sizes["profile"])]
    labels = [_label(point) for point in points]
    if "rung" not in rows.dims:  # measured before there was a ladder
        rows = rows.assign(state=(("profile", "rung"), [["not reached"]] * len(points)))
        rows = rows.assign(localised=("profile", [""] * len(points)))
    rungs = rows.rung.values.tolist()
    table = []
    for at, (point, label) in enumerate(zip(points, labels, strict=True)):
        row, where = [], rows.localised.values[at]
        for rung, state in zip(rungs, rows.state.values[at].tolist(), strict=True):
            word = LOOKS[state][1] + (f": {where}" if rung == "probe" and state == "red" else "")
            facts = hover(point, title=f"{label}: {rung}")
            row.append(Cell(list(LOOKS).index(state), word, facts))
        table.append(row)
    colours = {name: colour for name, (colour, _) in LOOKS.items()}
    figure = cells(table, rows=labels, columns=[escaped(each) for each in rungs], colours=colours)
    figure.update_xaxes(title_text="checks in order, up to the first that is red [1]")
    return figure


class Cell(NamedTuple):
    """One cell of a table, its texts escaped."""

    level: int | None  # index into the colours; None leaves the cell out
    text: str = ""  # written in it
    facts: str = ""  # shown when it is pointed at
    chosen: object = ""  # what a click sets a control to


def cells(
    table: Sequence[Sequence[Cell]],
    *,
    rows: list[str],
    columns: list[str],
    colours: dict[str, str],
    sets: str = "",
) -> go.Figure:
    """Draw a table of cells, each with a colour, a word and its facts.

    Parameters
    ----------
    table : sequence of sequence of Cell
        Its rows; short ones are filled up with nothing.
    rows, columns : list of str
        Labels, escaped.
    colours : dict of str
        Colour by meaning, as the legend shows it.
    sets : str, optional
        Name of the control that a click sets.
    """
    n, width = len(colours), len(columns)
    full = [[*row, *[Cell(None)] * (width - len(row))] for row in table]
    heat = go.Heatmap(
        z=[[each.level for each in row] for row in full],
        x=list(range(width)),
        y=rows,
        text=[[each.text for each in row] for row in full],
        texttemplate="%{text}",
        hovertext=[[each.facts for each in row] for row in full],
        hoverinfo="text",
        colorscale=[((at + end) / n, c) for at, c in enumerate(colours.values()) for end in (0, 1)],
        zmin=-0.5,
        zmax=n - 0.5,
        colorbar={"tickvals": list(range(n)), "ticktext": list(colours), "orientation": "h"}
        | {"tickangle": 0, "y": 1.0, "yanchor": "bottom", "thickness": 12}
        | {"x": 0, "xanchor": "left", "len": 0.7},
        xgap=3,
        ygap=3,
        customdata=[[each.chosen for each in row] for row in full] if sets else None,
        meta={"sets": sets} if sets else None,
    )
    figure = go.Figure(heat)
    figure.update_xaxes(tickvals=list(range(width)), ticktext=columns)
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return styled(figure, height=max(280, 170 + 30 * len(rows)))


def worst_first(ds: xr.Dataset) -> xr.Dataset:
    """Sort profiles: judged before unjudged, low ownership, high dominance, name."""
    names = np.asarray([str(each) for each in ds.profile.values])
    order = np.lexsort((names, -ds.dominant_rate.values, ds.owned_coverage.values, ~judgeable(ds)))
    return ds.isel(profile=order)


def _label(point: xr.Dataset) -> str:
    """Name a profile with the targets it owns and its number of records."""
    n_target, owned = int(point.target_unique), float(point.owned_coverage)
    told = f"{round(owned * n_target)}/{n_target} owned, " if np.isfinite(owned) else ""
    return f"{escaped(point.profile.item())}  ({told}n {int(point.records)})"


def _compared(ds: xr.Dataset) -> go.Figure:
    """Draw differences by profile, accuracy with twice its standard error."""
    names = [escaped(each) for each in ds.profile.values]
    figure = go.Figure()
    for name, colour, symbol in (
        ("accuracy", BLUE, "circle"),
        ("owned_coverage", VERMILLION, "diamond-open"),
    ):
        figure.add_scatter(
            x=rounded(ds[name].values),
            y=names,
            name=name.replace("_", " "),
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 10},
        )
    error = rounded(2 * ds.accuracy_standard_error.values)
    figure.data[0].update(error_x={"array": error, "color": INK}, name="accuracy, 2 std. errors")
    figure.update_xaxes(title_text="difference of shares [1]", zeroline=True)
    figure.update_yaxes(type="category", autorange="reversed")
    return styled(figure, height=max(260, 140 + 30 * len(names)))
