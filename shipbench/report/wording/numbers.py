"""Numbers as text: percentages with one decimal, other values with few digits, and a real minus sign."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def aligned(values: Sequence[float], scale: float = 1.0) -> list[str]:
    """Format ``values / scale`` with equally many decimals; empty where there is no value.

    The smallest has three significant digits (two below 1), but no number has more than three decimals.
    """
    sizes = [abs(value / scale) for value in values if has_value(value) and value]
    smallest = math.floor(math.log10(min(sizes))) if sizes else 0
    digits = min(3, max(0, (2 if smallest >= 0 else 1) - smallest))
    return [f"{value / scale:,.{digits}f}".replace("-", MINUS) if has_value(value) else "" for value in values]


def p_text(value: float) -> str:
    """Format a p-value with three decimals, or as "<0.001"; empty without a value."""
    if not has_value(value):
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def p_equation(value: float) -> str:
    """Format a p-value in a sentence: "p = 0.032" or "p < 0.001"."""
    text = p_text(value)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def setting(value: object) -> str:
    """Format the value of a setting as briefly as possible: 0.001, 1e-05, 10, cls."""
    return f"{value:g}" if isinstance(value, float) else str(value)
