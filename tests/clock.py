"""A clock that tests move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


class Clock:
    """A clock that moves only while a part of the work spends time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)

    def spending(self, seconds: float, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``work`` that takes so long."""

        def spend(*arguments: Any, **options: Any) -> Any:
            self.now += seconds
            return work(*arguments, **options)

        return spend
