"""Events of a run on another machine, written to a file that the supervising process reads."""

from __future__ import annotations

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
        # A lost event is no reason to stop the run.
        with suppress(OSError), self._file.open("ab") as stream:
            stream.write(pickle.dumps(event))


class JournalReader:
    """Reads the events that have been appended to a file since the last time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read = 0

    def events(self) -> Iterator[Event]:
        """Yield new events; one that is written only in part, so far, comes next time."""
        try:
            stream = self._file.open("rb")
        except OSError:
            return
        with stream:
            stream.seek(self._read)
            while True:
                # The file lies in the user's own results folder.
                try:
                    event: Event = pickle.load(stream)
                except (EOFError, OSError, pickle.UnpicklingError):
                    return
                self._read = stream.tell()
                yield event
