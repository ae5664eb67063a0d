"""What nbval does not compare in reports: HTML carries random ids, and SVG the digits of its
library's version; the figure and the text beside them are compared.
"""

from typing import Any


def pytest_collectstart(collector: Any) -> None:
    if getattr(collector, "path", None) is not None and collector.path.suffix == ".ipynb":
        collector.skip_compare += ("text/html", "image/svg+xml")
