"""Checks of a training that has not begun: a value, what it may be at most, and a remedy."""

from collections.abc import Iterable
from dataclasses import dataclass

import xarray as xr

from workbench import result


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at; it stands where `value` is above `threshold`, or NaN."""

    name: str
    value: float
    threshold: float
    message: str
    unit: str = "1"
    remedy: str = ""
    severity: str = "error"  # or warning: what it is where it stands

    @property
    def level(self) -> str:
        """``ok``, or the severity."""
        return "ok" if self.value <= self.threshold else self.severity


def check_table(checks: Iterable[Check]) -> xr.Dataset:
    """Label checks: one variable a field, by ``check``."""
    rows = list(checks)
    names = ("level", "value", "threshold", "unit", "message", "remedy")
    told = {
        name: result.variable("check", [getattr(each, name) for each in rows], name)
        for name in names
    }
    return result.check(xr.Dataset(told, {"check": [each.name for each in rows]}))
