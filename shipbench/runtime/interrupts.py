"""SIGTERM and SIGUSR1, which cluster schedulers send, and the end of a time limit stop a command as Ctrl-C does."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from shipbench.errors import InputError
from shipbench.runtime.console import say

# Windows has no SIGUSR1.
_STOPPING = tuple(number for number in signal.Signals if number.name in ("SIGTERM", "SIGUSR1"))


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGUSR1 arrived; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class TimeUp(KeyboardInterrupt):
    """The time limit of ``time_limit`` has passed."""


def exit_code(stop: KeyboardInterrupt) -> int:
    """Return the exit code that shells expect after a signal, 128 plus its number; 0 after a time limit."""
    if isinstance(stop, TimeUp):
        return 0
    return 128 + (stop.number if isinstance(stop, Terminated) else signal.SIGINT)


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Raise ``Terminated`` in the main thread if SIGTERM or SIGUSR1 arrives in the block; elsewhere do nothing."""
    # Python lets only the main thread set signal handlers.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _raise) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopping(kept: str) -> Iterator[None]:
    """End the command with one sentence when the block is interrupted; ``kept`` says what is left, and what to do.

    SIGTERM and SIGUSR1 interrupt as Ctrl-C does. The exit code is that of ``exit_code``.
    """
    try:
        with signals_interrupt():
            yield
    except KeyboardInterrupt as stop:
        say(f"stopped; {kept}")
        sys.exit(exit_code(stop))


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise ``TimeUp`` in the main thread if the block takes longer than ``seconds``; None sets no limit.

    Raises ``InputError`` on systems without interval timers, such as Windows.
    """
    if seconds is None:
        yield
        return
    if sys.platform == "win32":
        raise InputError("a time limit needs interval timers, which this system lacks; stop with Ctrl-C instead")
    before = signal.signal(signal.SIGALRM, _raise_time_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def leave_signals_to_the_parent() -> None:
    """Ignore stopping signals in this worker: they reach the whole process group, and the parent stops the worker."""
    for number in (signal.SIGINT, *_STOPPING):
        signal.signal(number, signal.SIG_IGN)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)


def _raise_time_up(number: int, frame: FrameType | None) -> None:
    raise TimeUp
