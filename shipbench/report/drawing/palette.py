"""Colour-blind-safe colours, and the colour maps of heat maps."""

from __future__ import annotations

from collections.abc import Sequence

INK = "#1f2431"
MUTED = "#666d7c"
RULE = "#d8dce4"
PAPER = "#fefefe"
# Ink on coloured cells keeps its colour on a dark page.
INK_ON_MAP, PAPER_ON_MAP = "#101319", "#fffdf7"
BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, GREY, PURPLE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#7b7f87",
    "#6f4fa3",
)
PALETTE = (ORANGE, PINK, PURPLE, SKY, BLUE, GREEN, VERMILION, GREY)
GROUP_COLOURS = {"Natural": GREEN, "Specialized": PINK, "Structured": BLUE}
THEME = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    PAPER: "paper",
    BLUE: "blue",
    VERMILION: "vermilion",
    GREEN: "green",
    PINK: "pink",
    ORANGE: "orange",
    SKY: "sky",
    GREY: "grey",
    PURPLE: "purple",
}
"""The names under which a page redefines colours for its light and dark themes."""

# Eleven evenly spaced colours of matplotlib's maps of the same names.
CIVIDIS = (
    "#00224e",
    "#083370",
    "#35456c",
    "#4f576c",
    "#666970",
    "#7d7c78",
    "#948e77",
    "#aea371",
    "#c8b866",
    "#e5cf52",
    "#fee838",
)
RED_BLUE = (
    "#67001f",
    "#b1182b",
    "#d6604d",
    "#f3a481",
    "#fddbc7",
    "#f6f7f7",
    "#d1e5f0",
    "#90c4dd",
    "#4393c3",
    "#2065ab",
    "#053061",
)


def rgb(colour: str) -> tuple[int, int, int]:
    """Return the red, green and blue of ``#rrggbb``, each from 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def mapped(value: float, low: float, high: float, colours: Sequence[str] = CIVIDIS) -> str:
    """Return the colour of ``value`` on a map from ``low`` to ``high``; values beyond the ends get the end colours."""
    share = min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 1.0
    place = share * (len(colours) - 1)
    first = min(int(place), len(colours) - 2)
    pairs = zip(rgb(colours[first]), rgb(colours[first + 1]), strict=True)
    mixed = (round(one + (other - one) * (place - first)) for one, other in pairs)
    return "#" + "".join(f"{part:02x}" for part in mixed)
