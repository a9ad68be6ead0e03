"""The hub's client is as silent as the console, and afterwards as before."""

from __future__ import annotations

import logging

from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars  # type: ignore[attr-defined]

from shipbench.runtime.console import discard, redirected
from shipbench.runtime.hub_output import as_silent_as_console


def state(logger: logging.Logger) -> tuple[bool, bool, bool]:
    levels = (logging.WARNING, logging.ERROR)
    return not are_progress_bars_disabled(), *(logger.isEnabledFor(level) for level in levels)


def test_bars_and_warnings_end_where_lines_are_discarded() -> None:
    logger, lines = logging.getLogger("huggingface_hub"), list[str]()
    enable_progress_bars()
    with redirected(lines.append), as_silent_as_console("huggingface_hub"):
        before = state(logger)
    with redirected(discard), as_silent_as_console("huggingface_hub"):
        assert state(logger) == (False, False, True)
    assert state(logger) == before
    assert before[0]
