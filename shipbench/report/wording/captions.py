"""Sentences that every caption needs: the selection rule and, for demo results, a disclaimer."""

from __future__ import annotations

from collections.abc import Sequence

from shipbench.report.wording.names import DEMO_SENTENCE, DEMO_SUITES
from shipbench.selection import Selection


def rule_sentence(selection: Selection) -> str:
    """Return a sentence that names and explains the selection rule."""
    return f"Selection rule: {selection.name}, {selection.sentence}."


def caption(text: str, selection: Selection, *suites: str) -> str:
    """Return ``text`` followed by the selection rule and, if a demo suite is among ``suites``, the disclaimer."""
    return " ".join([text, f"Selection rule: {selection.name} ({selection.gist}).", *_disclaimer(suites)])


def footer(selection: Selection, *suites: str) -> str:
    """Return the small line inside a figure, which stays with it when the caption does not."""
    return " · ".join([f"selection rule: {selection.name}", *_disclaimer(suites)])


def _disclaimer(suites: Sequence[str]) -> list[str]:
    return [DEMO_SENTENCE] if any(suite in DEMO_SUITES for suite in suites) else []
