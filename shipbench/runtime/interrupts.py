"""Signals: SIGTERM, which cluster schedulers send, and the end of a time limit stop a command as Ctrl-C does."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from shipbench.errors import InputError


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


class TimeUp(KeyboardInterrupt):
    """The time limit of ``time_limit`` has passed."""


def exit_code(stop: KeyboardInterrupt) -> int:
    """Return the exit code that shells expect after a signal, 128 plus its number; 0 after a time limit."""
    if isinstance(stop, TimeUp):
        return 0
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise ``Terminated`` in the main thread if SIGTERM arrives within the block; in other threads do nothing."""
    # Python lets only the main thread set signal handlers.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
    """Ignore SIGINT and SIGTERM in this worker: both reach the whole process group, and the parent stops the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _raise_time_up(number: int, frame: FrameType | None) -> None:
    raise TimeUp
