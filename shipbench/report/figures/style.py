"""How a method looks in every figure, and parts that several figures share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shipbench.methods import find_method
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.study import Study
from shipbench.report.drawing.chart import Axis, Key
from shipbench.report.drawing.palette import PALETTE

_MARKERS = ("D", "v", "P", "X", "<", ">", "d", "*")
# A repeated colour gets a marker far from its first one.
_MARKER_STEP = 3
_LINES = ("--", "-.", ":", "-- - -", "-")
_DASHES: dict[str, tuple[float, ...]] = {
    "-": (),
    "--": (5, 2.5),
    "-.": (6, 2, 1.5, 2),
    ":": (1.5, 2),
    "-- - -": (6, 1.5, 1.5, 1.5, 1.5, 1.5),
}


@dataclass(frozen=True)
class SeriesStyle:
    """How one method looks in every figure: colour, marker letter and line ("-" is solid)."""

    colour: str
    marker: str
    line: str

    @property
    def dashes(self) -> tuple[float, ...]:
        """The dash pattern of its lines in points."""
        return _DASHES[self.line]


def arm_styles(arms: Sequence[Arm]) -> dict[int, SeriesStyle]:
    """Return the style of every arm by key."""
    styles = series_styles([arm.method for arm in arms])
    return {arm.key: series for arm, series in zip(arms, styles, strict=True)}


def series_styles(methods: Sequence[str]) -> list[SeriesStyle]:
    """Give every series a look: the method's own at its first appearance, otherwise the next free one."""
    styles: list[SeriesStyle] = []
    strangers = 0
    for i, method in enumerate(methods):
        look = _method_style(method) if method not in methods[:i] else None
        if look is None:
            look = _stranger(strangers)
            strangers += 1
        styles.append(look)
    return styles


def arm_keys(arms: Sequence[Arm], *, marker: bool = True) -> tuple[Key, ...]:
    """Return the legend of ``arms``."""
    styles = arm_styles(arms)
    looks = [(arm, styles[arm.key]) for arm in arms]
    return tuple(
        Key(
            arm.short_label,
            look.colour,
            look.marker if marker else "",
            look.dashes,
            key=arm.short_label,
            name=arm.label,
        )
        for arm, look in looks
    )


def method_keys(study: Study) -> tuple[Key, ...]:
    """Return one legend entry per row of the main tables of ``study``, each label once."""
    arms = [arms for suite in study.suites if (arms := study.arms_of(suite, main=True))]
    keys = [
        replace(key, settings=study.choices_of(arm))
        for of_suite in arms
        for arm, key in zip(of_suite, arm_keys(of_suite), strict=True)
    ]
    return tuple({key.key: key for key in reversed(keys)}[name] for name in dict.fromkeys(key.key for key in keys))


def panel_columns(panels: int, most: int, *, narrow: bool) -> int:
    """Return the panels to a row: at most ``most``, and two on a narrow screen."""
    return min(panels, 2 if narrow else most)


def rows_height(count: int) -> float:
    """Return the height in points of a panel with ``count`` labelled rows, which stand closer if there are many."""
    return max(24 * min(count, 8), 13.5 * count)


def without_labels(axis: Axis) -> Axis:
    """Return the axis without the texts of its ticks and its title, for panels that share them with a neighbour."""
    return replace(axis, ticks=tuple((value, "") for value, _ in axis.ticks), label="")


def _method_style(method: str) -> SeriesStyle | None:
    """Return the look that a method asks for, or None if it has no colour or is not installed."""
    installed = find_method(method)
    if installed is None or installed.colour is None:
        return None
    return SeriesStyle(installed.colour, installed.marker, "-")


def _stranger(number: int) -> SeriesStyle:
    return SeriesStyle(
        PALETTE[number % len(PALETTE)],
        _MARKERS[(number + _MARKER_STEP * (number // len(PALETTE))) % len(_MARKERS)],
        _LINES[number // len(PALETTE) % len(_LINES)],
    )
