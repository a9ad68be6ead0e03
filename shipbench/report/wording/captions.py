"""Sentences that every caption needs: the selection rule, and what the demo suite is."""

from __future__ import annotations

from shipbench.report.wording.names import DEMO_SENTENCE, DEMO_SUITES
from shipbench.selection import Selection


def rule_sentence(selection: Selection) -> str:
    """Return the sentence that names and explains the selection rule."""
    return f"Selection rule: {selection.name}, {selection.sentence}."


def caption(text: str, selection: Selection, *suites: str) -> str:
    """Complete a caption with the selection rule and, for demo results, what they are."""
    demo = [DEMO_SENTENCE] if any(suite in DEMO_SUITES for suite in suites) else []
    return " ".join([text, f"Selection rule: {selection.name} ({selection.gist}).", *demo])


def footer(selection: Selection, *suites: str) -> str:
    """Return the small line inside a figure, for when it travels without its caption."""
    demo = [DEMO_SENTENCE] if any(suite in DEMO_SUITES for suite in suites) else []
    return " · ".join([f"selection rule: {selection.name}", *demo])
