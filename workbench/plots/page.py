"""One self-contained HTML page of figures: readable offline, in light and dark, and on paper.

The page holds exactly one copy of plotly.js and may load nothing: a content security policy says
so to the browser. Every text is escaped; figures travel as JSON that cannot end its script.
"""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go
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
    body = [_entry(entry, f"s{number}") for number, entry in enumerate(sections, start=1)]
    return "\n".join(
        [
            _HEAD.replace("$TITLE", html.escape(title)),
            f"<script>{get_plotlyjs()}</script>",
            "</head><body><main>",
            f"<header><h1>{html.escape(title)}</h1>{_facts(facts or {})}</header>",
            _contents(sections),
            *body,
            f"<footer>{html.escape(note)}</footer>" if note else "",
            f"</main><script>{_SCRIPT}</script></body></html>\n",
        ]
    )


def _entry(entry: Section | Part, key: str) -> str:
    """Lay out a section, or a part with its sections."""
    if isinstance(entry, Section):
        return _section(entry, key, level=2)
    inner = "\n".join(
        _section(section, f"{key}-{number}", level=3)
        for number, section in enumerate(entry.sections, start=1)
    )
    return (
        f'<div class="part" id="{key}"><h2>{html.escape(entry.heading)}</h2>'
        f"{_paragraph(entry.lead)}{_facts(entry.facts)}{inner}</div>"
    )


def _section(section: Section, key: str, *, level: int) -> str:
    """Lay out one section."""
    explained = ""
    if section.how_to_read:
        words = html.escape(section.how_to_read)
        explained = f"<details><summary>How to read it</summary><p>{words}</p></details>"
    return (
        f'<section id="{key}"><h{level}>{html.escape(section.heading)}</h{level}>'
        f"{_paragraph(section.lead)}{_figure(section)}{_table(section.table)}{explained}</section>"
    )


def _figure(section: Section) -> str:
    """Embed a figure as JSON beside the place where it is drawn."""
    if section.figure is None:
        return ""
    height = int(section.figure.layout.height or 400)
    label = html.escape(f"Figure: {section.heading}")
    # Only < can end a script or open a comment in it; JSON knows it by its code as well.
    spec = json.dumps(section.figure.to_plotly_json()).replace("<", "\\u003c")
    return (
        f'<div class="scroll"><div class="figure" role="img" aria-label="{label}" '
        f'style="height:{height}px"></div><script type="application/json">{spec}</script></div>'
        "<noscript><p>The figure needs JavaScript, which this page carries.</p></noscript>"
    )


def _table(rows: Sequence[Row]) -> str:
    """Lay out rows as a table, numbers to the right."""
    if not rows:
        return ""
    columns = list(rows[0])
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in columns)
    body = "".join(
        f"<tr>{''.join(_cell(row.get(name, '')) for name in columns)}</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _cell(value: object) -> str:
    """Lay out one cell."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number:
        return f"<td>{html.escape(str(value))}</td>"
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    return f'<td class="number">{"" if value != value else text}</td>'


def _facts(facts: Mapping[str, object]) -> str:
    """Lay out a strip of facts."""
    if not facts:
        return ""
    pairs = "".join(
        f"<div><dt>{html.escape(str(name))}</dt><dd>{html.escape(str(value))}</dd></div>"
        for name, value in facts.items()
    )
    return f"<dl>{pairs}</dl>"


def _paragraph(text: str) -> str:
    """Lay out a reading."""
    return f'<p class="lead">{html.escape(text)}</p>' if text else ""


def _contents(sections: Sequence[Section | Part]) -> str:
    """List the entries, and the sections of a part under it."""
    if len(sections) < 2:
        return ""
    items = []
    for number, entry in enumerate(sections, start=1):
        inner = ""
        if isinstance(entry, Part):
            links = [
                f'<li><a href="#s{number}-{place}">{html.escape(section.heading)}</a></li>'
                for place, section in enumerate(entry.sections, start=1)
            ]
            inner = f"<ul>{''.join(links)}</ul>"
        items.append(f'<li><a href="#s{number}">{html.escape(entry.heading)}</a>{inner}</li>')
    return f'<nav aria-label="Contents"><ul>{"".join(items)}</ul></nav>'


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';
  script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<meta name="color-scheme" content="light dark">
<title>$TITLE</title>
<style>
:root { --page: #f6f6f4; --card: #ffffff; --ink: #1d2127; --soft: #5d646f; --line: #e2e2de;
  --accent: #1f6aa5; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171b; --card: #1c2026; --ink: #e6e8eb; --soft: #a0a7b1; --line: #30353d;
    --accent: #7ab8ea; } }
@media print {
  :root { --page: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #ccc; --accent: #000; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui,
  -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 18px;
  text-wrap: balance; }
h2 { font-size: 1.3rem; letter-spacing: -0.01em; margin: 0 0 6px; }
h3 { font-size: 1.1rem; margin: 0 0 6px; }
.part > h2 { font-size: 1.55rem; margin: 48px 0 10px; }
.lead { margin: 0 0 10px; max-width: 78ch; text-wrap: pretty; }
section, nav { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 20px 24px; margin: 18px 0; }
dl { display: flex; flex-wrap: wrap; gap: 1px;
  margin: 0 0 18px; background: var(--line); border: 1px solid var(--line); border-radius: 10px;
  overflow: hidden; }
dl > div { flex: 1 1 auto; background: var(--card); padding: 10px 16px; }
dt { color: var(--soft); font-size: 0.78rem; }
dd { margin: 1px 0 0; font-weight: 600; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
nav { padding: 14px 24px; font-size: 0.94rem; }
nav > ul { display: flex; flex-wrap: wrap; gap: 6px 40px; }
nav ul { list-style: none; margin: 0; padding: 0; }
nav ul ul { margin: 2px 0 4px; padding-left: 14px; border-left: 2px solid var(--line); }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
.scroll { overflow-x: auto; }
.figure { min-width: 680px; }
table { border-collapse: collapse; margin: 10px 0; font-size: 0.9rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 18px 5px 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
td.number { text-align: right; }
details { color: var(--soft); font-size: 0.92rem; margin-top: 8px; }
summary { cursor: pointer; }
details p { margin: 6px 0 0; max-width: 78ch; }
footer { color: var(--soft); font-size: 0.85rem; margin-top: 28px; max-width: 90ch;
  overflow-wrap: anywhere; }
@media print {
  main { max-width: none; padding: 0; }
  section { break-inside: avoid; border: 0; padding: 8px 0; }
  nav { display: none; } .figure { min-width: 0; } }
</style>"""

# Figures carry a middle grey that reads on any page; here the page's own ink is known, so use it.
_SCRIPT = """
(() => {
  const figures = [...document.querySelectorAll(".figure")];
  const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  // The share button would send the data to a server of plotly's.
  const settings = {responsive: true, displaylogo: false, showSendToCloud: false,
    plotlyServerURL: "",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"]};
  for (const place of figures) {
    const spec = JSON.parse(place.parentNode.querySelector("script").textContent);
    spec.layout.font = {...spec.layout.font, color: ink()};
    spec.layout.modebar = {bgcolor: "rgba(0,0,0,0)"};
    Plotly.newPlot(place, spec.data, spec.layout, settings);
  }
  const redraw = () => figures.forEach((place) => Plotly.relayout(place, {"font.color": ink()}));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  matchMedia("print").addEventListener("change", redraw);
})();
"""
