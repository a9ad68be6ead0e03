"""SIGTERM and SIGUSR1, which cluster schedulers send, and the end of a time limit stop a command as Ctrl-C does.

An interruption waits for the end of an import: raised while torch loads, it would abort the process.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType

from shipbench.errors import InputError

Handler = Callable[[int, FrameType | None], None]

# Seconds between two looks whether an import has ended.
_PAUSE = 0.02
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


def exit_when_interrupted(sentence: str, code: int) -> None:
    """Let Ctrl-C end the process at once, with a sentence and an exit code, while there is nothing to clean up.

    Does nothing in a process that ignores Ctrl-C, such as a background job of a shell.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        # Standard error may be closed.
        with suppress(OSError):
            os.write(2, sentence.encode())
        os._exit(code)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, leave)


def signals_interrupt() -> AbstractContextManager[None]:
    """Raise ``Terminated`` in the main thread if SIGTERM or SIGUSR1 arrives in the block; elsewhere do nothing."""
    return _handling_signals(_after_imports(_raise))


@contextmanager
def stopping(kept: str, tell: Callable[[str, int], None] | None = None) -> Iterator[None]:
    """End the command with one sentence when the block is interrupted.

    ``kept`` is the rest of the sentence: which results are kept, and which command continues.
    SIGTERM and SIGUSR1 interrupt as Ctrl-C does. The exit code is that of ``exit_code``.
    ``tell``, if given, receives sentence and exit code instead of standard error.
    """
    try:
        with signals_interrupt():
            yield
    except KeyboardInterrupt as stop:
        from shipbench.runtime.console import say

        sentence, code = f"stopped; {kept}", exit_code(stop)
        if tell is None:
            say(sentence)
        else:
            tell(sentence, code)
        sys.exit(code)


def settled() -> AbstractContextManager[None]:
    """Ignore Ctrl-C, SIGTERM and SIGUSR1 in the block, for a short last step whose outcome the command then states.

    Only the main thread can do so; elsewhere the block is executed as it is.
    """
    # A function, because a signal that arrived just before the block is not yet handled and would find no handler.
    return _handling_signals(_ignore)


@contextmanager
def _handling_signals(handler: Handler) -> Iterator[None]:
    """Handle SIGINT, SIGTERM and SIGUSR1 in the block, except those that the process ignores."""
    # Python lets only the main thread set signal handlers.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in (signal.SIGINT, *_STOPPING) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


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
    before = signal.signal(signal.SIGALRM, _after_imports(_raise_time_up))
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


@contextmanager
def children_without_interrupts() -> Iterator[None]:
    """Start processes within the block that Ctrl-C does not reach; here it takes effect at the end of the block."""
    if sys.platform == "win32":
        yield
        return
    # Unlike a handler, the mask is inherited by a new program.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _after_imports(handler: Handler) -> Handler:
    """Return a handler that runs ``handler``; while the main thread imports a module, it waits for the end."""

    def wait_or_handle(number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            # Without the locks of ``threading``, which the interrupted code may hold.
            _thread.start_new_thread(_send_again, (number,))
        else:
            handler(number, frame)

    return wait_or_handle


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _send_again(number: int) -> None:
    time.sleep(_PAUSE)
    if sys.platform == "win32":
        _thread.interrupt_main(number)
    else:
        # To the main thread: a signal to another one does not end the main thread's waiting.
        signal.pthread_kill(threading.main_thread().ident or 0, number)


def _raise(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(number)


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


def _raise_time_up(number: int, frame: FrameType | None) -> None:
    raise TimeUp
