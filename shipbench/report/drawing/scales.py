"""Axes with round ticks for numbers, and even ones for categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, floor, log10

from shipbench.report.drawing.chart import Axis

_MINUS = "\N{MINUS SIGN}"
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_FACTORS = ((1.0,), (1.0, 2.0, 5.0), (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0))
"""The ticks in a decade of a logarithmic axis, from few to many; the last leave two on the shortest axis."""
_ZEROS = {f"{_MINUS}{zero}": zero for zero in ("0", "0.0", "0.00")}


def position(axis: Axis, value: float) -> float:
    """Return the place of ``value`` on the axis: 0 at its low end, 1 at its high end."""
    low, high = (log10(axis.low), log10(axis.high)) if axis.log else (axis.low, axis.high)
    return ((log10(value) if axis.log else value) - low) / (high - low)


def number_axis(values: Sequence[float], label: str = "", *, margin: float = 0.06, count: int = 5) -> Axis:
    """Return an axis that spans ``values`` and ``margin`` on both sides, with about ``count`` round ticks."""
    low, high = min(values), max(values)
    room = margin * ((high - low) or abs(high) or 1.0)
    if high - low < 1e-9:
        room = max(room, 0.5)
    return with_ticks(Axis(low - room, high + room, label=label), count)


def with_ticks(axis: Axis, count: int = 5, *, whole: bool = False) -> Axis:
    """Return ``axis`` with about ``count`` round ticks inside it, at whole numbers if ``whole``."""
    low, high = sorted((axis.low, axis.high))
    step = _step((high - low) / max(1, count), whole=whole)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    digits = max(0, -floor(log10(step) + 1e-9) + (1 if _needs_half(step) else 0))
    ticks = [(i * step, f"{i * step:.{digits}f}".replace("-", _MINUS)) for i in range(first, last + 1)]
    return replace(axis, ticks=tuple((value, _ZEROS.get(text, text)) for value, text in ticks))


def _needs_half(step: float) -> bool:
    return abs(step / 10 ** floor(log10(step) + 1e-9) - 2.5) < 1e-6


def _step(rough: float, *, whole: bool) -> float:
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in _STEPS if power * factor >= rough - 1e-12)
    return max(1.0, float(ceil(step))) if whole else step


def log_axis(values: Sequence[float], label: str, unit: float) -> Axis:
    """Return a logarithmic axis over positive ``values`` with ticks labelled in multiples of ``unit``."""
    low, high = log10(min(values)), log10(max(values))
    room = 0.12 * max(high - low, 1.0)
    low, high = low - room, high + room
    powers = range(floor(low - log10(unit)) - 1, ceil(high - log10(unit)) + 1)
    choices = _FACTORS[1:] if high - low < 2.2 else _FACTORS
    ticks: list[tuple[float, str]] = []
    for factors in choices:
        places = [factor * 10.0**power for power in powers for factor in factors]
        ticks = [(place * unit, f"{place:,g}") for place in places if low <= log10(place * unit) <= high]
        if len(ticks) > 1:
            break
    return Axis(10**low, 10**high, tuple(ticks), label, log=True)


def category_axis(labels: Sequence[str], **options: bool) -> Axis:
    """Return an axis with a place at 0, 1, 2, ... for each label, without lines."""
    ticks = tuple(enumerate(labels))
    return replace(Axis(-0.5, len(labels) - 0.5, ticks, grid=False, line=False), **options)  # type: ignore[arg-type]


def downwards(labels: Sequence[str]) -> Axis:
    """Return a y axis whose first category is at the top."""
    axis = category_axis(labels)
    return replace(axis, low=axis.high, high=axis.low)
