"""Signals: SIGTERM, which cluster schedulers send, stops a command as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


def exit_code(stop: KeyboardInterrupt) -> int:
    """Return the exit code that shells expect after a signal: 128 plus its number."""
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


def leave_signals_to_the_parent() -> None:
    """Ignore SIGINT and SIGTERM in this worker: both reach the whole process group, and the parent stops the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated
