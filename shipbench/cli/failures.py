"""Errors as one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from shipbench.errors import InputError, ShipbenchError, one_line
from shipbench.runtime.console import say


def describe_failure(error: Exception) -> tuple[str, int]:
    """Return the sentence that explains ``error``, and the exit code."""
    if isinstance(error, ShipbenchError):
        return f"error: {error}", error.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        # Errors of runs become records, so this path comes from the command line.
        path = error.filename2 or error.filename
        return f"error: {path} cannot be used: {error.strerror}", InputError.exit_code
    reason = f"{type(error).__name__}: {one_line(error)}"
    return f"unexpected error: {reason}; run again with --debug for the traceback", 1


def exit_if_unreadable(errors: Sequence[str]) -> None:
    """Print the sentence of every image that could not be read, and exit with 1 if there are any."""
    for error in errors:
        say(f"error: {error}")
    if errors:
        sys.exit(1)
