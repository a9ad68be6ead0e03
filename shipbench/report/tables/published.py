"""Published rows beside our own: what papers printed, and how far ours is from it."""

from __future__ import annotations

from collections.abc import Sequence

from shipbench.published import PublishedRow
from shipbench.report.analysis.published import BACKBONE, Comparison
from shipbench.report.wording.text import joined


def incomparable_note(pairs: Sequence[Comparison]) -> str:
    """Name our arms that stand under a published row without a difference to it; empty if there are none."""
    arms = {arm.label for pair in pairs for arm in pair.arms if arm not in pair.comparable}
    if not arms:
        return ""
    return (
        f"No difference to the published numbers for {joined(sorted(arms))}: published rows are of ViT-B/16 with "
        f"supervised ImageNet-21k weights ({BACKBONE}), which these runs did not use."
    )


def source_note(row: PublishedRow) -> str:
    """Return the footnote of a published row: where it was printed, on what, and how it was chosen."""
    protocol = f"; protocol: {row.protocol}" if row.protocol else ""
    unclear = f"; inconsistent in print: {', '.join(row.inconsistencies)}" if row.inconsistencies else ""
    return f"{row.paper}, {row.venue} {row.year}; {row.backbone}{protocol}{unclear}."


def letters(count: int) -> list[str]:
    """Return footnote letters: a to z, then aa, ab and so on."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return [("" if i < 26 else alphabet[i // 26 - 1]) + alphabet[i % 26] for i in range(count)]
