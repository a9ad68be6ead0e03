"""Commands that Ctrl-C strikes at a known call, so that no test depends on time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any

from tests.faults.phases import wrap_function
from tests.forks import command, start_fork


@dataclass(frozen=True)
class Strike:
    """The moment at which a process sends SIGINT to itself: when call number ``call`` of ``place`` has ended.

    ``place`` is a module and the path of a function in it, as in ``shipbench.runs.session:store_run``.
    """

    place: str
    call: int = 1


@dataclass(frozen=True)
class Ended:
    """The exit code of a command and what it printed."""

    code: int
    said: str

    @property
    def stopped(self) -> list[str]:
        """The lines that say that the command was stopped."""
        return [line for line in self.said.splitlines() if line.startswith("stopped; ")]


def execute(
    arguments: Sequence[object], environment: Mapping[str, str], log: Path, strike: Strike | None = None
) -> Ended:
    """Execute ``shipbench ARGUMENTS...`` in a process of its own."""
    log.unlink(missing_ok=True)
    process = start_fork(_command, [str(argument) for argument in arguments], dict(environment), log, strike)
    process.join(100)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"the command did not end; it printed:\n{log.read_text()}")
    return Ended(process.exitcode, log.read_text())


def _command(arguments: list[str], environment: dict[str, str], log: Path, strike: Strike | None) -> None:
    if strike is not None:
        wrap_function(strike.place, partial(_striking, strike.call))
    command(arguments, environment, log)


def _striking(call: int, function: Callable[..., Any]) -> Callable[..., Any]:
    calls = list[None]()

    @wraps(function)
    def call_and_strike(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        calls.append(None)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    return call_and_strike
