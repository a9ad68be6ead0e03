"""Paper styles: the column widths, font and text size of a figure."""

from __future__ import annotations

from dataclasses import dataclass

from shipbench.settings import one_of


@dataclass(frozen=True)
class PaperStyle:
    """Widths of a narrow and a wide figure in points, the factor for text sizes, and whether the font has serifs."""

    name: str
    narrow: float
    wide: float
    text: float = 1.0
    serif: bool = False


PLAIN = PaperStyle("plain", 288, 518.4)
PAPER_STYLES = (
    PLAIN,
    # Two columns of 3.25 in, 6.875 in over both.
    PaperStyle("cvpr", 234, 495, 0.95, serif=True),
    # One column of 5.5 in; a narrow figure takes about half.
    PaperStyle("neurips", 196, 396, 0.95, serif=True),
)


# About as wide as the page draws it on a phone: a point is 1.3 pixels there, and the text of an axis 10 pixels high.
PHONE = PaperStyle("phone", 264, 264, 1.05)


def get_paper_style(name: str) -> PaperStyle:
    """Return a style by name; raises ``InputError`` for an unknown one."""
    styles = {style.name: style for style in PAPER_STYLES}
    return styles[one_of(name, styles, "--style", "style")]
