"""Numbers as text: percentages with one decimal, other values with few digits, and a real minus sign."""

from __future__ import annotations

import math

MINUS = "\N{MINUS SIGN}"
PLUS_MINUS = "±"


def has_value(value: float | None) -> bool:
    """Return whether ``value`` is a finite number."""
    return value is not None and math.isfinite(value)


def percent(value: float | None) -> str:
    """Format a percentage with one decimal; empty without a value."""
    return f"{value:.1f}".replace("-", MINUS) if value is not None and has_value(value) else ""


def signed(value: float | None) -> str:
    """Format a difference in percentage points with its sign and one decimal; empty without a value."""
    if value is None or not has_value(value):
        return ""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def deviation(value: float | None) -> str:
    """Format a deviation as "±0.3"; empty without a value."""
    return f"{PLUS_MINUS}{value:.1f}" if value is not None and has_value(value) else ""


def short(value: float | None, scale: float = 1.0) -> str:
    """Format ``value / scale`` with three significant digits (two below 1) and no exponent; empty without a value."""
    if value is None or not has_value(value):
        return ""
    scaled = value / scale
    if scaled == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(scaled)))
    digits = max(0, (2 if magnitude >= 0 else 1) - magnitude)
    return f"{scaled:,.{digits}f}".replace("-", MINUS)


def setting(value: object) -> str:
    """Format the value of a setting as briefly as possible: 0.001, 1e-05, 10, cls."""
    return f"{value:g}" if isinstance(value, float) else str(value)
