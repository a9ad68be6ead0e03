"""Sentences that every caption needs: the selection rule and the cautions of suites."""

from __future__ import annotations

from shipbench.report.document import Caption
from shipbench.report.wording.names import suite_cautions
from shipbench.selection import Selection


def rule_sentence(selection: Selection) -> str:
    """Return a sentence that names and explains the selection rule."""
    return f"Selection rule: {selection.name}, {selection.sentence}."


def caption(text: str, selection: Selection, *suites: str, details: str = "") -> Caption:
    """Return a caption whose standing sentences name the selection rule and the cautions of ``suites``."""
    rule = f"Selection rule: {selection.name} ({selection.gist})."
    return Caption(text, details, " ".join([rule, *suite_cautions(suites)]))


def footer(selection: Selection, *suites: str) -> str:
    """Return the small line inside a figure, which stays with it when the caption does not."""
    return " · ".join([f"selection rule: {selection.name}", *suite_cautions(suites)])
