"""Messages and progress: a rich display on a terminal, plain lines elsewhere.

Messages and progress go to standard error, results to standard output.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from functools import cache
from typing import Any, Literal, TextIO, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from shipbench.runtime.streams import spelled

Item = TypeVar("Item")
# Print names literally: rich would read [no-hierarchy] as a style and :x: as an emoji.
_LITERAL: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
# Messages quote files of strangers, and no control character in one must reach the terminal.
_CONTROL_CHARACTERS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)))
_redirection: ContextVar[Callable[[str], None] | None] = ContextVar("redirection", default=None)


class _Console(Console):
    """A console that spells letters which the encoding lacks, prints no control characters of others, and leaves
    closed pipes to the stream.
    """

    def render_str(self, text: str, **style: Any) -> Text:
        """Return ``text`` as the encoding shows it, so that its width is right."""
        return super().render_str(spelled(text, self.encoding), **style)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yield the parts of a renderable object."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else segment.text.translate(_CONTROL_CHARACTERS)
            yield segment._replace(text=text)


def err_console() -> Console:
    """Return a console on the current standard error."""
    return _Console(file=sys.stderr, soft_wrap=True, color_system=_colours(), **_LITERAL)


def out_console() -> Console:
    """Return a console on standard output: as wide as the terminal, or wide enough for whole rows elsewhere.

    ``COLUMNS`` in the environment sets the width. With ``NO_COLOR`` the console prints plain text, without bold or
    italic letters either.
    """
    terminal = sys.stdout.isatty()
    # rich takes every dumb terminal to be 80 columns wide; the size of others may change.
    sized = terminal and os.environ.get("TERM") not in ("dumb", "unknown")
    width, height = (None, None) if sized else shutil.get_terminal_size((80 if terminal else 200, 25))
    return _Console(file=sys.stdout, width=width, height=height, color_system=_colours(), **_LITERAL)


def _colours() -> Literal["auto"] | None:
    return None if os.environ.get("NO_COLOR") else "auto"


@contextmanager
def redirected(receive: Callable[[str], None] | None) -> Iterator[None]:
    """Pass every line to ``receive``, which may print, within the block instead of printing it; with None, print it."""
    token = _redirection.set(receive)
    try:
        yield
    finally:
        _redirection.reset(token)


def discard(line: str) -> None:
    """Receive a redirected line and print nothing."""


def is_silent() -> bool:
    """Return whether lines are redirected to ``discard``, so that libraries should print nothing either."""
    return _redirection.get() is discard


def say(message: str) -> None:
    """Print a line on standard error, unless lines are redirected."""
    receive = _redirection.get()
    if receive is None:
        err_console().print(message)
    else:
        with redirected(None):
            receive(message)


@cache
def say_once(message: str) -> None:
    """Print a line as ``say`` does, unless this process has printed it before."""
    say(message)


def show_traceback() -> None:
    """Print the traceback of the exception being handled if the user passed ``--debug``."""
    if os.environ.get("SHIPBENCH_DEBUG"):
        traceback.print_exc()


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Iterate over ``items`` with a progress bar; without a terminal, print one line at the start instead."""
    console = err_console()
    if not console.is_interactive or _redirection.get() is not None:
        say(f"{description} ({total})")
        yield from items
        return
    columns = (
        # The dots of other spinners need Unicode.
        SpinnerColumn("line"),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(items, total=total, description=description)


@contextmanager
def stdout_of_this_thread() -> Iterator[None]:
    """Discard within the block what other threads print on standard output, which belongs to results."""
    with redirect_stdout(_OneThread(sys.stdout)):
        yield


class _OneThread(io.TextIOBase):
    """A stream that passes on what the thread that made it writes, and discards the rest."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.thread = threading.get_ident()

    def write(self, text: str) -> int:
        """Write ``text``, or discard it if this is another thread; return its length."""
        return self.stream.write(text) if threading.get_ident() == self.thread else len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """Return the file descriptor of the stream."""
        return self.stream.fileno()
