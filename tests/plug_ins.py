"""Entry points of packages that a test pretends are installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint

import pytest

from shipbench.runtime import plug_ins


def install(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    """Register ``points`` beside those of the installed packages."""
    real = plug_ins._points

    def found(group: str, path: tuple[str, ...]) -> Sequence[EntryPoint]:
        return (*real(group, path), *(point for point in points if point.group == group))

    monkeypatch.setattr(plug_ins, "_points", found)
