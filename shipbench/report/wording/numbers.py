"""How numbers are written: one decimal for percent, few digits for the rest, a real minus sign."""

from __future__ import annotations

import math

MINUS = "\N{MINUS SIGN}"
PLUS_MINUS = "±"


def known(value: float | None) -> bool:
    """Say whether there is a number to print."""
    return value is not None and math.isfinite(value)


def percent(value: float | None) -> str:
    """Write a percentage with one decimal; nothing if it is unknown."""
    return f"{value:.1f}".replace("-", MINUS) if value is not None and known(value) else ""


def signed(value: float | None) -> str:
    """Write a difference in percentage points with its sign and one decimal."""
    if value is None or not known(value):
        return ""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def deviation(value: float | None) -> str:
    """Write a deviation as "±0.3"."""
    return f"{PLUS_MINUS}{value:.1f}" if value is not None and known(value) else ""


def short(value: float | None, scale: float = 1.0) -> str:
    """Write ``value / scale`` with three significant digits, two below 1, and no exponent."""
    if value is None or not known(value):
        return ""
    scaled = value / scale
    if scaled == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(scaled)))
    digits = max(0, (2 if magnitude >= 0 else 1) - magnitude)
    return f"{scaled:,.{digits}f}".replace("-", MINUS)


def setting(value: object) -> str:
    """Write a setting's value as short as it can be: 0.001, 1e-05, 10, cls."""
    return f"{value:g}" if isinstance(value, float) else str(value)
