"""Panels for notebooks: choose, and look. All numbers come from the parts below."""

from workbench.explore.choose import RunChooser, choose_run
from workbench.explore.panel import Panel
from workbench.explore.subject import Subject

__all__ = ["Panel", "RunChooser", "Subject", "choose_run"]
