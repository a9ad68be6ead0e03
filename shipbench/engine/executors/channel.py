"""Send events from worker processes to the process that started them."""

from __future__ import annotations

import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection
from multiprocessing.connection import Listener as Socket
from socket import create_connection
from typing import Any

from shipbench.events import Event, Listener


@dataclass(frozen=True)
class Address:
    """The address to send events to, and the key that authenticates a worker."""

    place: Any
    key: bytes


class Sender:
    """A worker's connection to a ``Channel``: a listener that sends every event; events are lost if it is broken."""

    def __init__(self, address: Address) -> None:
        self.connection: Connection | None = None
        with suppress(OSError, EOFError, AuthenticationError):
            self.connection = Client(address.place, authkey=address.key)

    def __call__(self, event: Event, /) -> None:
        """Send an event; a broken connection is no reason to stop the run."""
        if self.connection is not None:
            with suppress(OSError):
                self.connection.send(event)

    def close(self) -> None:
        """Close the connection."""
        if self.connection is not None:
            self.connection.close()


class Channel:
    """Receives the events of any number of workers on this machine within a ``with`` block, each in its own thread."""

    def __init__(self, emit: Listener) -> None:
        self.emit = emit
        key = secrets.token_bytes(16)
        self.socket = Socket(("127.0.0.1", 0), authkey=key)
        self.address = Address(self.socket.address, key)
        self.closing = False
        self.readers: list[threading.Thread] = []
        self.acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Channel:
        """Start to accept connections."""
        self.acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Receive the remaining events and stop."""
        self.closing = True
        # One more connection wakes the thread that waits for the next one. It may have ended, so nobody may answer.
        with suppress(OSError):
            create_connection(self.address.place).close()
        self.acceptor.join()
        self.socket.close()
        for reader in self.readers:
            reader.join(timeout=5)

    def _accept(self) -> None:
        while not self.closing:
            with suppress(OSError, EOFError, AuthenticationError):
                reader = threading.Thread(target=self._read, args=(self.socket.accept(),), daemon=True)
                reader.start()
                self.readers.append(reader)

    def _read(self, connection: Connection) -> None:
        with suppress(OSError, EOFError), connection:
            while True:
                self.emit(connection.recv())
