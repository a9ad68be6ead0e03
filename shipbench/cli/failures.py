"""Errors as one line and an exit code."""

from __future__ import annotations

from shipbench.errors import InputError, ShipbenchError, one_line


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
