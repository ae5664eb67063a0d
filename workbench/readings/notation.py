"""How readings write a number with its error."""

import math


def with_error(value: object, error: object, *, sign: str = "") -> str:
    """Write a number with one standard error, to two digits of the error, or say it is unknown.

    Examples
    --------
    >>> with_error(0.41512, 0.0204)
    '0.415 +- 0.020'
    >>> with_error(0.0042, float("nan"), sign="+")
    '+0.0042 (error unknown)'
    """
    number, spread = float(value), float(error)  # type: ignore[arg-type]
    digits = 3 if abs(number) >= 0.02 else 4
    if math.isfinite(spread) and spread >= 1e-6:
        digits = min(6, max(1, 1 - math.floor(math.log10(spread))))
    told = f"{number:{sign}.{digits}f}"
    return told + (f" +- {spread:.{digits}f}" if math.isfinite(spread) else " (error unknown)")
