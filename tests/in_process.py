"""Notebooks that run in the process of a test: a kernel of their own takes seconds to start."""

import nbformat
from papermill.exceptions import PapermillExecutionError


def execute_notebook(source, target, *, parameters, **_):
    """Stand in for papermill: run the cells here, `parameters` after the cell that has that tag."""
    notebook = nbformat.read(source, as_version=4)
    nbformat.write(notebook, target)
    space = {}
    for number, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
        try:
            exec(cell.source, space)
        except Exception as error:
            kind = type(error).__name__
            raise PapermillExecutionError(
                number, number, cell.source, kind, str(error), []
            ) from error
        if "parameters" in cell.metadata.get("tags", []):
            space.update(parameters)
