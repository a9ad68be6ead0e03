"""Who is doing a run: one file for each run under way, so that several processes share a results folder.

``claims/<run_id>.json`` is made by exclusive create, which holds on network file systems too. It says who the claimant
is; a thread renews its time while the run goes on. A claim is stale when its process is gone, as far as this machine
can tell, or when it has not been renewed for ``STALE_SECONDS`` by the file system's own clock. Only the holder of
``claims/.<run_id>.takeover``, made in the same way, removes a stale claim, after having judged it again.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from shipbench.errors import InputError, ShipbenchError, StoreError
from shipbench.results.store import Store
from shipbench.runtime.console import say
from shipbench.runtime.process_identity import Claimant, myself, place_of_process, started_at

STALE_SECONDS = 120.0
_RENEW_SECONDS = 20.0
_LOOK_SECONDS = 2.0
_WAIT_SECONDS = 1.0
# A file that cannot be read now, on a network file system above all, often can be a moment later.
_LOOKS, _PAUSE_SECONDS = 10, 0.2


class ClaimLostError(ShipbenchError):
    """Another process was given the run, because this one seemed to be gone or was told to stop."""


class Claim:
    """A run that this process has to itself until the end of a ``with`` block."""

    def __init__(self, path: Path, token: str) -> None:
        self.path = path
        self.token = token
        self._lost = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Claim:
        """Begin to renew the claim."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the run free."""
        self._over.set()
        self._thread.join()
        with suppress(OSError, ValueError):
            if not self._is_lost():
                self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise ``ClaimLostError`` if the run is no longer this process's, as far as was seen seconds ago."""
        if self._lost:
            raise ClaimLostError("the run was given to another process")

    def confirm(self, store: Store, record_version: int | None) -> None:
        """Raise ``ClaimLostError`` unless this process holds the claim and the record is still ``record_version``.

        Raises ``StoreError`` if that cannot be found out.
        """
        self.check()
        for look in range(1, _LOOKS + 1):
            try:
                if self._is_lost() or store.written(self.path.stem) != record_version:
                    raise ClaimLostError("the run was given to another process")
                return
            except (OSError, ValueError) as error:
                if look == _LOOKS:
                    raise StoreError(f"results folder {store.root} cannot be read any more ({error})") from error
                time.sleep(_PAUSE_SECONDS)

    def _is_lost(self) -> bool:
        """Say whether the claim is gone or another's; raises ``OSError`` or ``ValueError`` if it cannot be read now."""
        try:
            return _parse(self.path).token != self.token
        except FileNotFoundError:
            return True

    def _renew(self) -> None:
        renewed = time.monotonic()
        while not self._over.wait(_LOOK_SECONDS):
            with suppress(OSError, ValueError):
                self._lost = self._lost or self._is_lost()
            if self._lost:
                return
            if time.monotonic() - renewed > _RENEW_SECONDS:
                with suppress(OSError):
                    os.utime(self.path)
                renewed = time.monotonic()


def take(root: Path, run_id: str) -> Claim | None:
    """Return a claim on a run, or None if another live process has it.

    Raises ``StoreError`` if the results folder cannot be written to.
    """
    path = _path(root, run_id)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not _remove_stale(path):
            return None
        token = secrets.token_hex(8)
        return Claim(path, token) if _create(path, myself(token)) else None
    except OSError as error:
        raise StoreError(f"results folder {root} cannot be written to any more ({error.strerror})") from error


def wait_for(root: Path, run_id: str) -> Claim:
    """Return a claim on a run as soon as no other live process has it; says whom it waits for.

    Raises ``StoreError`` if the results folder cannot be written to.
    """
    said = False
    while (claim := take(root, run_id)) is None:
        who = holder(root, run_id)
        if who and not said:
            say(f"run {run_id} is being done by another process ({who}); waiting for it")
            said = True
        time.sleep(_WAIT_SECONDS)
    return claim


def holder(root: Path, run_id: str) -> str | None:
    """Say which live process has a run, or return None if nobody has."""
    path = _path(root, run_id)
    if not path.exists() or _is_stale(path):
        return None
    claimant = _read(path)
    return f"{claimant.host}, process {claimant.pid}" if claimant else "another process"


def revoke(root: Path, run_id: str) -> None:
    """Take a run from whoever has it: that process stops at its next step and stores nothing."""
    _path(root, run_id).unlink(missing_ok=True)


def tidy(store: Store) -> None:
    """Remove what processes that were killed left behind: stale claims, and checkpoints of runs that are done.

    A checkpoint beside a failed record is of a later attempt (``attempt.fail``), which can go on from it.
    """
    _sweep(store.root)
    claimed = [path.stem for path in (store.root / "claims").glob("*.json")]
    unfinished = [path.stem for path in (store.root / "checkpoints").glob("*.safetensors")]
    for run_id in sorted({*claimed, *unfinished}):
        claim = take(store.root, run_id)
        if claim is None:
            continue
        # A record that cannot be read is said where it is asked for.
        with claim, suppress(InputError):
            if store.status(run_id) == "done":
                store.remove("checkpoints", run_id)


def _sweep(root: Path) -> None:
    """Remove what processes that were killed in the middle of a judgement left behind."""
    # Who misses the probe that it has just made takes the claim that it judges for a live one, and looks again later.
    for probe in (root / "claims").glob(".clock-*"):
        probe.unlink(missing_ok=True)
    for guard in (root / "claims").glob(".*.takeover"):
        if _is_stale(guard):
            guard.unlink(missing_ok=True)


def _path(root: Path, run_id: str) -> Path:
    return root / "claims" / f"{run_id}.json"


def _create(path: Path, claimant: Claimant) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(json.dumps(asdict(claimant)).encode())
    except OSError:
        # A full disk: an empty claim would keep everybody out until it is old.
        path.unlink(missing_ok=True)
        raise
    return True


def _read(path: Path) -> Claimant | None:
    try:
        return _parse(path)
    except (OSError, ValueError):
        return None


def _parse(path: Path) -> Claimant:
    """Return who a claim is of; raises ``OSError`` or ``ValueError`` if it cannot be read."""
    try:
        return Claimant(**json.loads(path.read_text()))
    except TypeError as error:
        raise ValueError("it is no claim") from error


def _remove_stale(path: Path) -> bool:
    """Return whether a claim is gone: it was stale, or its process gave it up."""
    if not _is_stale(path):
        return not path.exists()
    with _alone(path.with_name(f".{path.stem}.takeover")) as alone:
        # Between the judgement above and this one, another process may have taken the run over.
        if alone and _is_stale(path):
            path.unlink(missing_ok=True)
    return not path.exists()


@contextmanager
def _alone(guard: Path) -> Iterator[bool]:
    """Tell whether this process is the only one in the block; the guard of a process that died in it is removed."""
    made = _create(guard, myself(secrets.token_hex(8)))
    if not made and _is_stale(guard):
        guard.unlink(missing_ok=True)
    try:
        yield made
    finally:
        if made:
            guard.unlink(missing_ok=True)


def _is_stale(path: Path) -> bool:
    claimant = _read(path)
    if claimant is not None and claimant.place == place_of_process():
        started = started_at(claimant.pid)
        # An empty text is a process of which no more is known than that it is there.
        if started != "":
            return started != claimant.started
    return _age(path) > STALE_SECONDS


def _age(path: Path) -> float:
    """Return seconds since a file was renewed, by the clock of the file system it is on."""
    probe = path.with_name(f".clock-{secrets.token_hex(4)}")
    try:
        renewed = path.stat().st_mtime
        probe.touch()
        return probe.stat().st_mtime - renewed
    except FileNotFoundError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)
