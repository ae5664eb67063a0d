"""Pin what was seen: a sentence, its numbers and its figure, into a report that can be re-run."""

import html
import json
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from workbench.explore.panel import Panel
from workbench.folder import PROJECT, InputError, digest, replacing, valid_name
from workbench.plots.view import View

TITLE = """# Pinned: {name}

What was seen in panels and thought worth keeping: a sentence, then the view behind it.
Each view is drawn from a frozen copy of its numbers in `data/`, named by their hash.
Running this page again must show the same; it says what the numbers were, not what they are now."""


def pin(
    sentence: str, seen: Panel | View, report: str = "pinned", *, folder: Path | None = None
) -> str:
    """Append what is seen to a report notebook, with its figure, numbers and provenance.

    The same pin twice is one pin. Outputs are stored, so that the page reads without being run.

    Parameters
    ----------
    sentence : str
        What you conclude, in your own words.
    seen : Panel or View
        A panel pins all its views, as the controls stand now.
    report : str
        Name of the notebook, without its suffix; it is made when missing.
    folder : Path, optional
        Where reports are; by default ``reports/`` of the project.

    Returns
    -------
    str
        Where it is now.

    Raises
    ------
    InputError
        If the name is not valid, or that notebook was not made by pinning.
    """
    place = (folder or PROJECT / "reports") / f"{valid_name(report)}.ipynb"
    notebook = nbformat.read(place, as_version=4) if place.exists() else _begun(report)
    known = {cell.id for cell in notebook.cells}
    if "pinned-imports" not in known:
        raise InputError(
            place,
            expected="a report made by pinning",
            found="another notebook",
            remedy="Choose another name of the report.",
        )
    views = seen.views if isinstance(seen, Panel) else [seen]
    key = digest(sentence, *(view.key for view in views))[:12]
    if f"pin-{key}" not in known:
        notebook.cells.append(new_markdown_cell(_said(sentence, seen, views), id=f"pin-{key}"))
        for number, view in enumerate(views):
            count = sum(cell.cell_type == "code" for cell in notebook.cells) + 1
            path = view.save(place.parent / "data")
            notebook.cells.append(_drawn(path, f"pin-{key}-{number}", count))
        with replacing(place) as scratch:
            nbformat.write(notebook, scratch)
    return f"pinned in {place.parent.name}/{place.name}"


def _begun(report: str) -> Any:
    """Begin a report."""
    first = new_code_cell("from workbench import plots", id="pinned-imports", execution_count=1)
    cells = [new_markdown_cell(TITLE.format(name=report), id="pinned-title"), first]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _said(sentence: str, seen: Panel | View, views: list[View]) -> str:
    """Write the sentence and where it comes from, so that no character of it is markup."""
    source = [seen.title] if isinstance(seen, Panel) else []
    source += [f"data {view.hash[:12]}" for view in views]
    calls = "\n".join(dict.fromkeys(view.code for view in views if view.code))
    return f"<p><b>{_safe(sentence)}</b></p>\n<p>{_safe(', '.join(source))}</p>\n" + (
        f"<pre>{html.escape(calls).replace('$', '&#36;')}</pre>" if calls else ""
    )


def _safe(text: str) -> str:
    """Make text inert in markdown: one line inside an HTML block, without formulas."""
    return html.escape(" ".join(text.split())).replace("$", "&#36;")


def _drawn(path: Path, name: str, count: int) -> Any:
    """Make the cell that draws a frozen view, with the outputs that running it gives."""
    source = f'view = plots.View.open("data/{path.name}")\nprint(view.sentence)\nview'
    view = View.open(path)  # as the cell will read it
    bundle = json.loads(json.dumps(view._repr_mimebundle_()))
    shown = new_output("execute_result", data=bundle, execution_count=count)
    said = new_output("stream", name="stdout", text=f"{view.sentence}\n")
    return new_code_cell(source, id=name, execution_count=count, outputs=[said, shown])
