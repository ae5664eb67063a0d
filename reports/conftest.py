"""What nbval does not compare in reports: HTML carries random ids; its text twin is compared."""

from typing import Any


def pytest_collectstart(collector: Any) -> None:
    if getattr(collector, "path", None) is not None and collector.path.suffix == ".ipynb":
        collector.skip_compare += ("text/html",)
