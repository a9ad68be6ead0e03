"""Sentences that several captions need: the selection rule, the cautions of suites, what times leave out."""

from __future__ import annotations

from collections.abc import Iterable

from shipbench.methods import find_method
from shipbench.report.document import Caption
from shipbench.report.wording.names import suite_cautions
from shipbench.report.wording.text import joined
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


def features_sentence(measures: str, methods: Iterable[str]) -> str:
    """Return what the ``measures`` of those ``methods`` leave out that train on fixed features; empty without any."""
    installed = (find_method(method) for method in dict.fromkeys(methods))
    names = [method.title for method in installed if method is not None and method.trains_on_features]
    if not names:
        return ""
    return (
        f"The {measures} of {joined(names)} leave out the features of the frozen backbone, which are computed once "
        "before (unless images are augmented)."
    )
