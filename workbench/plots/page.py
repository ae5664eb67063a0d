"""One self-contained HTML page of figures: readable offline, in light and dark, and on paper.

The page holds exactly one copy of plotly.js and may load nothing: a content security policy says
so to the browser. The template escapes every text; figures travel as JSON that cannot end its
script.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader
from plotly.offline import get_plotlyjs

Row = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One figure with what it shows; every part but the heading may be left out."""

    heading: str
    lead: str = ""  # the reading: one or two sentences
    figure: go.Figure | None = None
    table: Sequence[Row] = ()  # rows; the first row's keys are the columns
    how_to_read: str = ""  # explanation, folded until asked for


@dataclass(frozen=True, kw_only=True)
class Part:
    """Sections that belong together, such as one run of several, with facts of their own."""

    heading: str
    sections: Sequence[Section]
    lead: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)


def page(
    title: str,
    sections: Sequence[Section | Part],
    *,
    facts: Mapping[str, object] | None = None,
    note: str = "",
) -> str:
    """Make the HTML of a page.

    Parameters
    ----------
    title : str
        Heading of the page.
    sections : sequence of Section or Part
        In order. With two entries or more a table of contents leads to them.
    facts : mapping, optional
        Name to value, shown as a strip under the title: run, bits per byte with its protocol,
        parameters, steps, corpus hash.
    note : str
        Small print at the foot: provenance, limits.

    Returns
    -------
    str
        A whole document, about 5 MB, nearly all of it plotly.js.
    """
    return _TEMPLATE.render(
        title=title, entries=sections, facts=facts, note=note, plotly=get_plotlyjs()
    )


def _number(value: float) -> str:
    """Write a number of a table; what was not measured leaves its cell empty."""
    if value != value:
        return ""
    return f"{value:,}" if isinstance(value, Integral) else f"{value:,.4g}"


_TEMPLATES = Environment(
    loader=PackageLoader("workbench", "plots"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["number"] = _number
_TEMPLATE = _TEMPLATES.get_template("page.html")
