"""What worker processes have to say, on its way to the process that shows it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from shipbench.training.history import EpochReport


def brief(content: Any) -> Any:
    """Return an event's content without predictions, which are on disk anyway."""
    return content.without_predictions() if isinstance(content, EpochReport) else content


@dataclass(frozen=True)
class Address:
    """Where a worker sends events, and the key that shows them to be a worker's."""

    place: Any
    key: bytes


class Sender:
    """A worker's line for the events of one run; nobody listening is no reason to stop the run."""

    def __init__(self, address: Address, run_id: str) -> None:
        self.run_id = run_id
        self.connection: Any = None
        with suppress(OSError, EOFError, AuthenticationError):
            self.connection = Client(address.place, authkey=address.key)

    def __call__(self, kind: str, content: Any) -> None:
        """Send an event."""
        with suppress(OSError, AttributeError):
            self.connection.send((self.run_id, kind, brief(content)))

    def close(self) -> None:
        """Say that no more will come."""
        if self.connection is not None:
            self.connection.close()


class Channel:
    """Hears the events of any number of workers on this machine, in a thread for each, within a ``with`` block."""

    def __init__(self, hear: Callable[[str, str, Any], None]) -> None:
        self.hear = hear
        key = secrets.token_bytes(16)
        self.listener = Listener(("127.0.0.1", 0), authkey=key)
        self.address = Address(self.listener.address, key)
        self.closing = False
        self.readers: list[threading.Thread] = []
        self.door = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Channel:
        """Begin to listen."""
        self.door.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Hear the rest and stop."""
        self.closing = True
        # A connection of our own wakes the thread that waits for the next one.
        Sender(self.address, "").close()
        self.door.join()
        self.listener.close()
        for reader in self.readers:
            reader.join(timeout=5)

    def _accept(self) -> None:
        while not self.closing:
            with suppress(OSError, EOFError, AuthenticationError):
                reader = threading.Thread(target=self._read, args=(self.listener.accept(),), daemon=True)
                reader.start()
                self.readers.append(reader)

    def _read(self, connection: Connection) -> None:
        with suppress(OSError, EOFError), connection:
            while True:
                self.hear(*connection.recv())
