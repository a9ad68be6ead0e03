"""Run claims: one lock file per active run, so that several processes can share a results folder.

``claims/<run_id>.json`` is created exclusively, which is reliable on network file systems too. It names its holder, and
a thread renews its modification time while the run is active. A claim is stale if its process has ended, as far as this
machine can tell, or if it has not been renewed for ``STALE_SECONDS`` by the clock of the file system. A claim from
the future is as stale as one from the past: that clock was set back, and a live process would have renewed the claim.
Only a process that holds ``claims/.<run_id>.takeover``, created in the same way, removes a stale claim, after checking
it once more.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from shipbench.errors import InputError, ShipbenchError, StoreError, one_line
from shipbench.results.lookup import visible_files
from shipbench.results.store import Store, writing
from shipbench.runtime.process_identity import ProcessIdentity, current_process, is_running

Value = TypeVar("Value")
STALE_SECONDS = 120.0
_RENEW_SECONDS = 20.0
_CHECK_SECONDS = 2.0
_WAIT_SECONDS = 1.0
# A file that cannot be read or removed, above all on a network file system, often can be a moment later.
_ATTEMPTS, _PAUSE_SECONDS = 10, 0.2


class ClaimLostError(ShipbenchError):
    """Another process took over the run because this one seemed to have ended, or the claim was revoked."""


@dataclass(frozen=True)
class ClaimHolder(ProcessIdentity):
    """The process that holds a claim; ``token`` distinguishes its claims on the same run."""

    token: str


def this_process_as_holder(token: str) -> ClaimHolder:
    """Return this process as the holder of a claim."""
    return ClaimHolder(**asdict(current_process()), token=token)


class Claim:
    """The exclusive right to a run until the end of a ``with`` block."""

    def __init__(self, path: Path, token: str) -> None:
        self.path = path
        self.token = token
        self._lost = False
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Claim:
        """Start renewing the claim."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Release the claim."""
        self._released.set()
        self._thread.join()
        # A claim that stayed would keep others from the run as long as this process lives.
        with suppress(OSError, ValueError):
            _patiently(self._remove)

    def _remove(self) -> None:
        if not self._is_lost():
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise ``ClaimLostError`` if the claim was lost when the renewing thread last looked, seconds ago."""
        if self._lost:
            raise ClaimLostError("the run was taken over by another process")

    def confirm(self, store: Store, record_version: int | None) -> None:
        """Raise ``ClaimLostError`` unless this process holds the claim and the record is still ``record_version``.

        Raises ``StoreError`` if the results folder stays unreadable.
        """
        self.check()
        try:
            current = _patiently(lambda: not self._is_lost() and store.written(self.path.stem) == record_version)
        except (OSError, ValueError) as error:
            raise StoreError(f"results folder {store.root} cannot be read any more ({one_line(error)})") from error
        if not current:
            raise ClaimLostError("the run was taken over by another process")

    def _is_lost(self) -> bool:
        """Return whether the claim is gone or has another holder.

        Raises ``OSError`` or ``ValueError`` if it cannot be read.
        """
        try:
            return _parse(self.path).token != self.token
        except FileNotFoundError:
            return True

    def _renew(self) -> None:
        renewed = time.monotonic()
        while not self._released.wait(_CHECK_SECONDS):
            with suppress(OSError, ValueError):
                self._lost = self._is_lost()
            if self._lost:
                return
            if time.monotonic() - renewed > _RENEW_SECONDS:
                with suppress(OSError):
                    os.utime(self.path)
                renewed = time.monotonic()


def _patiently(call: Callable[[], Value]) -> Value:
    """Return what ``call`` returns, after several attempts if it raises ``OSError`` or ``ValueError``."""
    for _ in range(_ATTEMPTS - 1):
        with suppress(OSError, ValueError):
            return call()
        time.sleep(_PAUSE_SECONDS)
    return call()


def take(root: Path, run_id: str) -> Claim | None:
    """Claim a run; return None if another live process holds the claim.

    Raises ``StoreError`` if the results folder cannot be written to.
    """
    path = _path(root, run_id)
    with writing(root):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not _remove_stale(path):
            return None
        token = secrets.token_hex(8)
        return Claim(path, token) if _create(path, this_process_as_holder(token)) else None


def wait_for(root: Path, run_id: str, on_wait: Callable[[str], None]) -> Claim:
    """Return a claim on a run as soon as no other live process holds one; call ``on_wait`` once with the holder.

    Raises ``StoreError`` if the results folder cannot be written to.
    """
    waiting = pauses(root, run_id, on_wait)
    while (claim := take(root, run_id)) is None:
        next(waiting)
    return claim


def pauses(root: Path, run_id: str, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Yield after each pause between two attempts to take a claim; call ``on_wait`` once with the holder."""
    announced = False
    while True:
        other = holder(root, run_id)
        if other and not announced:
            on_wait(other)
            announced = True
        time.sleep(_WAIT_SECONDS)
        yield


def holder(root: Path, run_id: str) -> str | None:
    """Return the host and process id of the claim holder, or None if no live process holds the claim.

    Raises ``StoreError`` if the results folder, which tells the time of its file system, cannot be written to.
    """
    path = _path(root, run_id)
    with writing(root):
        if not path.exists() or _is_stale(path):
            return None
    process = _read(path)
    return f"{process.host}, process {process.pid}" if process else "another process"


def is_held_here(root: Path, run_id: str) -> bool:
    """Return whether this process holds the claim on a run."""
    process = _read(_path(root, run_id))
    return process is not None and process == this_process_as_holder(process.token)


def holders(root: Path) -> dict[str, ClaimHolder | None]:
    """Return the holder of every claim that is not stale, by run id; None for a claim that cannot be read."""
    return {path.stem: _read(path) for path in visible_files(root / "claims", ".json") if _is_active(path)}


def _is_active(path: Path) -> bool:
    try:
        return path.exists() and not _is_stale(path)
    except OSError:
        # A folder that cannot be written to does not tell the time of its file system.
        return path.exists() and abs(time.time() - path.stat().st_mtime) <= STALE_SECONDS


def revoke(root: Path, run_id: str) -> None:
    """Remove the claim on a run: its holder stops at the next step and stores nothing."""
    _path(root, run_id).unlink(missing_ok=True)


def tidy(store: Store) -> None:
    """Remove what killed processes left behind: stale claims, and checkpoints of finished runs.

    The checkpoint of a failed run stays: it belongs to a later attempt, which resumes from it. One that is newer than
    the record stays too: it belongs to a repetition of the run. Raises ``StoreError`` if the results folder cannot be
    written to.
    """
    with writing(store.root):
        _remove_probes_and_guards(store.root)
    claimed = [path.stem for path in visible_files(store.root / "claims", ".json")]
    unfinished = [path.stem for path in visible_files(store.root / "checkpoints", ".safetensors")]
    for run_id in sorted({*claimed, *unfinished}):
        claim = take(store.root, run_id)
        if claim is None:
            continue
        # An unreadable record is reported by the commands that need it.
        with claim, suppress(InputError, OSError):
            checkpoint, record = store.path("checkpoints", run_id).stat(), store.path("runs", run_id).stat()
            if checkpoint.st_mtime_ns <= record.st_mtime_ns and store.status(run_id) == "done":
                store.remove("checkpoints", run_id)


def _remove_probes_and_guards(root: Path) -> None:
    """Remove the files of processes that were killed while they checked or removed a stale claim."""
    # A process whose probe disappears takes the claim for a live one, and checks it again later.
    for probe in (root / "claims").glob(".clock-*"):
        probe.unlink(missing_ok=True)
    for guard in (root / "claims").glob(".*.takeover"):
        if _is_stale(guard):
            guard.unlink(missing_ok=True)


def _path(root: Path, run_id: str) -> Path:
    return root / "claims" / f"{run_id}.json"


def _create(path: Path, process: ClaimHolder) -> bool:
    """Create a claim file; return whether it did not exist before."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(json.dumps(asdict(process)).encode())
    except OSError:
        # The disk is full: an empty claim would block the run until it is stale.
        path.unlink(missing_ok=True)
        raise
    return True


def _read(path: Path) -> ClaimHolder | None:
    try:
        return _parse(path)
    except (OSError, ValueError):
        return None


def _parse(path: Path) -> ClaimHolder:
    """Return the holder in a claim file; raises ``OSError`` or ``ValueError`` if it cannot be read."""
    try:
        return ClaimHolder(**json.loads(path.read_text()))
    except (TypeError, RecursionError) as error:
        raise ValueError("it is not a claim") from error


def _remove_stale(path: Path) -> bool:
    """Remove a claim if it is stale; return whether there is no claim any more."""
    if not _is_stale(path):
        return not path.exists()
    with _exclusive(path.with_name(f".{path.stem}.takeover")) as exclusive:
        # Another process may have taken over the run since the check above.
        if exclusive and _is_stale(path):
            path.unlink(missing_ok=True)
    return not path.exists()


@contextmanager
def _exclusive(guard: Path) -> Iterator[bool]:
    """Yield whether this process is the only one in the block; remove the guard of a process that died in it."""
    created = _create(guard, this_process_as_holder(secrets.token_hex(8)))
    if not created and _is_stale(guard):
        guard.unlink(missing_ok=True)
    try:
        yield created
    finally:
        if created:
            guard.unlink(missing_ok=True)


def _is_stale(path: Path) -> bool:
    process = _read(path)
    running = None if process is None else is_running(process)
    return _age(path) > STALE_SECONDS if running is None else not running


def _age(path: Path) -> float:
    """Return the seconds between the last renewal of a file and now, by its file system's clock; 0 if it is gone."""
    probe = path.with_name(f".clock-{secrets.token_hex(4)}")
    try:
        renewed = path.stat().st_mtime
        probe.touch()
        return abs(probe.stat().st_mtime - renewed)
    except FileNotFoundError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)
