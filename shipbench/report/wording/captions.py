"""Sentences that every caption needs: the selection rule and the cautions of suites."""

from __future__ import annotations

from shipbench.report.wording.names import suite_cautions
from shipbench.selection import Selection


def rule_sentence(selection: Selection) -> str:
    """Return a sentence that names and explains the selection rule."""
    return f"Selection rule: {selection.name}, {selection.sentence}."


def caption(text: str, selection: Selection, *suites: str) -> str:
    """Return ``text`` followed by the selection rule and the cautions of ``suites``."""
    return " ".join([text, f"Selection rule: {selection.name} ({selection.gist}).", *suite_cautions(suites)])


def footer(selection: Selection, *suites: str) -> str:
    """Return the small line inside a figure, which stays with it when the caption does not."""
    return " · ".join([f"selection rule: {selection.name}", *suite_cautions(suites)])
