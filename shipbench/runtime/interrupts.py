"""Being told to stop: Ctrl-C, and SIGTERM as clusters send it, end a command in the same way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


def exit_code(stop: KeyboardInterrupt) -> int:
    """Return the exit code that shells expect: 128 and the number of the signal."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise ``Terminated`` in the main thread when SIGTERM arrives within the block."""
    # Only the main thread may set handlers, and only it would hear them.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def leave_signals_to_the_parent() -> None:
    """Make this worker process ignore what the whole process group is sent: its parent ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated
