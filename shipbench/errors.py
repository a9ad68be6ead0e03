"""The errors that a user can meet, the exit code of each, and how to put an error into one line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable


class ShipbenchError(Exception):
    """Base of the errors raised on purpose; the message is one sentence for the user."""

    exit_code = 1


class InputError(ShipbenchError):
    """The request cannot be carried out; the message says what is wrong, where, and what to do."""

    exit_code = 2


class StoreError(ShipbenchError):
    """The results folder can no longer be used, so no run can be stored."""


class OutputError(ShipbenchError):
    """Standard output cannot be written, so nobody would receive the results."""


class DeviceLostError(ShipbenchError):
    """A GPU fails every operation of this process, so every other run would fail there too."""


def one_line(error: BaseException, limit: int = 500) -> str:
    """Return the message of ``error`` on one line of at most ``limit`` characters, or its class if it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def system_reason(error: Exception) -> str:
    """Return the operating system's reason for ``error``, such as "No space left on device", else its message.

    safetensors and pyarrow give the system's error number only in their message; under Windows it is one of its own.
    """
    number = re.search(r"(?:os error|errno) (\d+)", str(error))
    if number is not None and sys.platform != "win32":
        return os.strerror(int(number[1]))
    reason = error.strerror if isinstance(error, OSError) else None
    return reason or one_line(error)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest of ``choices``, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name.lower(), choices, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
