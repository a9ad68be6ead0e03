"""End the process without waiting for threads that may hang."""

from __future__ import annotations

import os
import sys

_expected: list[bool] = []


def expect_hanging_threads() -> None:
    """Let ``leave`` end the process at once: a library that hangs may have threads and exit handlers that hang too."""
    _expected.append(True)


def leave(stop: SystemExit) -> None:
    """End the process with the code of ``stop`` if threads may hang; otherwise return, so that it ends as usual."""
    if not _expected:
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code_of(stop))


def code_of(stop: SystemExit) -> int:
    """Return the exit code of a process that ``stop`` ends; a message in place of a code means 1."""
    return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
