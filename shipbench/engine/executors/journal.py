"""Events of a run on another machine, written to a file that the supervising process reads.

Each event is a line of its own, so that one that a killed process has written only in part hides no other.
"""

from __future__ import annotations

import base64
import pickle
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from shipbench.events import Event


class JournalWriter:
    """A listener that appends every event to a file; an event that cannot be written is lost."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, event: Event, /) -> None:
        """Append an event."""
        line = base64.b64encode(pickle.dumps(event))
        # A lost event is no reason to stop the run.
        with suppress(OSError), self._file.open("ab") as stream:
            # The newline before it ends what a killed process may have left.
            stream.write(b"\n" + line + b"\n")


class JournalReader:
    """Reads the events that have been appended to a file since the last time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read = 0

    def skip(self) -> None:
        """Leave out what the file holds so far; create it if it does not exist.

        A client of a network file system would not see for a minute a file that another one creates.
        """
        with self._file.open("ab") as stream:
            self._read = stream.tell()

    def events(self) -> Iterator[Event]:
        """Yield new events; one that is written only in part, so far, comes next time."""
        try:
            with self._file.open("rb") as stream:
                stream.seek(self._read)
                lines, newline, _ = stream.read().rpartition(b"\n")
        except OSError:
            return
        self._read += len(lines) + len(newline)
        for line in filter(None, lines.split(b"\n")):
            if (event := _parsed(line)) is not None:
                yield event


def _parsed(line: bytes) -> Event | None:
    """Return the event in a line, or None if a part of it is missing."""
    # Half an event can raise almost any error. The file lies in the user's own results folder.
    try:
        event: Event = pickle.loads(base64.b64decode(line, validate=True))
    except Exception:
        return None
    return event
