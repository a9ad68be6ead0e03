"""The errors that a user can meet, the exit code of each, and how to put an error into one line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

Value = TypeVar("Value")
Default = TypeVar("Default")


class ShipbenchError(Exception):
    """Base of the errors raised on purpose; the message is one sentence for the user."""

    exit_code = 1


class InputError(ShipbenchError):
    """The request cannot be carried out; the message says what is wrong, where, and what to do.

    Of several ``problems`` each is a sentence of its own; repeats are left out.
    """

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        several = len(self.problems) > 1
        super().__init__("\n- ".join([f"{len(self.problems)} problems:", *self.problems]) if several else problems[0])


class StoreError(ShipbenchError):
    """The results folder can no longer be used, so no run can be stored."""


class OutputError(ShipbenchError):
    """Standard output cannot be written, so nobody would receive the results."""


class DeviceLostError(ShipbenchError):
    """A GPU fails every operation of this process, so every other run would fail there too."""


def check_all(checks: Iterable[Callable[[], Value]]) -> list[Value]:
    """Return what ``checks`` return; raise one ``InputError`` with the problems of all that raise one."""
    values: list[Value] = []
    problems: list[str] = []
    for check in checks:
        try:
            values.append(check())
        except InputError as error:
            problems.extend(error.problems)
    if problems:
        raise InputError(*problems)
    return values


def value_of(check: Callable[[], Value], instead: Default, problems: list[str]) -> Value | Default:
    """Return what ``check`` returns, or ``instead`` if it raises ``InputError``, whose problems join ``problems``.

    For checks whose results further checks need; ``check_all`` is shorter for all others.
    """
    try:
        return check()
    except InputError as error:
        problems.extend(error.problems)
        return instead


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


def unknown(kind: str, name: object, choices: Iterable[str], where: str = "") -> InputError:
    """Return the error for a ``name`` that is none of ``choices``; ``where`` begins it, such as an option."""
    names = list(choices)
    return InputError(f"{where}unknown {kind} {name!r}{did_you_mean(str(name), names)}; choose from {', '.join(names)}")
