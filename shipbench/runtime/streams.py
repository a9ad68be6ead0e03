"""Standard streams for any text and any reader: other encodings, closed streams, full disks, pipes closed early."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import BinaryIO, TextIO

from shipbench.errors import OutputError, system_reason

CLOSED_PIPE = 141
"""The exit code after a reader has closed the pipe: 128 plus the number of SIGPIPE, as for programs in C."""

_ERRORS = "shipbench.spelled"
# How tables write these letters where the encoding lacks them.
_SPELLINGS = {
    "\N{PLUS-MINUS SIGN}": "+/-",
    "\N{DAGGER}": "+",
    "\N{DOUBLE DAGGER}": "++",
    "\N{MINUS SIGN}": "-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{HORIZONTAL ELLIPSIS}": "...",
}


def prepare_streams() -> None:
    """Let standard output and error take any text, replace closed ones by a sink, and end quietly on a closed pipe."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _Stream(stream.buffer, stream, results=name == "stdout"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def flush_streams() -> None:
    """Write what is buffered, so that a closed pipe is noticed before the interpreter ends; exit with 141 then."""
    sys.stdout.flush()
    sys.stderr.flush()


@contextmanager
def results_apart() -> Iterator[TextIO]:
    """Yield a stream for results alone: within the block, everything else on standard output goes to standard error.

    In a process of its own, that includes what child processes and libraries in C print.
    """
    stream = sys.stdout
    if not isinstance(stream, _Stream):
        with redirect_stdout(sys.stderr):
            yield stream
        return
    stream.flush()
    place = stream.fileno()
    kept = os.dup(place)
    os.dup2(sys.stderr.fileno(), place)
    try:
        with redirect_stdout(sys.stderr):
            yield _Stream(os.fdopen(os.dup(kept), "wb"), stream, results=True)
    finally:
        stream.flush()
        os.dup2(kept, place)
        os.close(kept)


def spelled(text: str, encoding: str) -> str:
    """Return ``text`` as it will appear in ``encoding``: letters that it lacks are spelled, or escaped."""
    return text.encode(encoding, _ERRORS).decode(encoding)


class _Stream(io.TextIOWrapper):
    """A standard stream that exits with 141 once its reader has closed the pipe.

    Any other failure, such as that of a full disk, raises ``OutputError`` if the stream takes ``results``; one that
    takes messages drops them from then on, because no run should end for the lack of a line of progress.
    """

    def __init__(self, buffer: BinaryIO, like: io.TextIOWrapper, *, results: bool) -> None:
        super().__init__(
            buffer,
            encoding=like.encoding,
            errors=_ERRORS,
            line_buffering=like.line_buffering,
            write_through=like.write_through,
        )
        self.results = results

    def write(self, text: str, /) -> int:
        """Write ``text`` and return its length."""
        try:
            super().write(text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        # The interpreter flushes what is still buffered when it ends, and must not fail again.
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, self.fileno())
        os.close(sink)
        if isinstance(error, BrokenPipeError):
            sys.exit(CLOSED_PIPE)
        if self.results:
            reason = system_reason(error)
            raise OutputError(f"standard output cannot be written: {reason}; send it elsewhere") from error


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_SPELLINGS.get(letter) or _escape(letter) for letter in letters), error.end


def _escape(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error(_ERRORS, _spell)
