"""Claims: one holder at a time, even if processes die; foreign claims age by the clock of the file system."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

import pytest

from shipbench.errors import StoreError
from shipbench.results import claims
from shipbench.results.claims import Claim, ClaimLostError, holder, revoke, take
from shipbench.results.store import Store
from tests.results.test_store import make_record


def claim_file(root: Path, **changes: object) -> Path:
    """Write the claim of another process, by default a live one of this machine, and return its file."""
    (root / "claims").mkdir(parents=True, exist_ok=True)
    path = root / "claims" / "a1.json"
    path.write_text(json.dumps(asdict(replace(claims.this_process_as_holder("other"), **changes))))
    return path


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def dead_process() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_a_claim_excludes_others_until_it_ends(tmp_path: Path) -> None:
    claim = take(tmp_path, "a1")
    assert claim is not None
    with claim:
        assert take(tmp_path, "a1") is None
        assert f"process {os.getpid()}" in str(holder(tmp_path, "a1"))
        assert take(tmp_path, "b2") is not None
    assert holder(tmp_path, "a1") is None
    assert take(tmp_path, "a1") is not None


def test_the_claim_of_a_dead_process_is_stale_at_once(tmp_path: Path) -> None:
    claim_file(tmp_path, pid=dead_process())
    assert holder(tmp_path, "a1") is None
    assert take(tmp_path, "a1") is not None


def test_a_reused_process_id_holds_no_claim(tmp_path: Path) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("this system does not report start times of processes")
    claim_file(tmp_path, started="1")
    assert take(tmp_path, "a1") is not None


# A clock that was set back leaves claims in the future, which no live process leaves there for long.
@pytest.mark.parametrize(("seconds", "free"), [(0, False), (60, False), (180, True), (-60, False), (-3600, True)])
def test_a_claim_of_another_machine_is_judged_by_its_age(tmp_path: Path, seconds: float, free: bool) -> None:
    age(claim_file(tmp_path, host="far", place="far", pid=1), seconds)
    assert (holder(tmp_path, "a1") is None) is free
    assert (take(tmp_path, "a1") is not None) is free


@pytest.mark.parametrize(("seconds", "free"), [(0, False), (180, True)])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"host": 3}', b"\xff"])
def test_an_unreadable_claim_is_judged_by_its_age(tmp_path: Path, content: bytes, seconds: float, free: bool) -> None:
    path = claim_file(tmp_path)
    path.write_bytes(content)
    age(path, seconds)
    assert (take(tmp_path, "a1") is not None) is free


def test_only_one_of_many_threads_takes_over_a_stale_claim(tmp_path: Path) -> None:
    for attempt in range(20):
        claim_file(tmp_path, pid=dead_process() if attempt == 0 else 2**22 + 1)
        with ThreadPoolExecutor(8) as pool:
            # A loser may meet the guard of the winner, or its claim; both make it give up.
            taken = [claim for claim in pool.map(lambda _: take(tmp_path, "a1"), range(8)) if claim]
        assert len(taken) == 1
        (tmp_path / "claims" / "a1.json").unlink()
    assert not list((tmp_path / "claims").iterdir())


def test_the_guard_of_a_process_that_died_in_a_takeover_is_removed(tmp_path: Path) -> None:
    path = claim_file(tmp_path, pid=dead_process())
    path.with_name(".a1.takeover").write_text(path.read_text())
    assert take(tmp_path, "a1") is None
    assert take(tmp_path, "a1") is not None


def test_a_revoked_claim_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_CHECK_SECONDS", 0.01)
    claim = take(tmp_path, "a1")
    assert isinstance(claim, Claim)
    with claim:
        claim.check()
        for _ in range(2):
            # The second time, it is gone, as if its holder had just ended.
            revoke(tmp_path, "a1")
        claim_file(tmp_path)
        # The renewing thread ends when it has seen that the claim is lost.
        claim._thread.join(60)
        with pytest.raises(ClaimLostError):
            claim.check()
    assert (tmp_path / "claims" / "a1.json").exists(), "the claim of the other process was removed"


def test_a_claim_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_CHECK_SECONDS", 0.01)
    monkeypatch.setattr(claims, "_RENEW_SECONDS", 0.0)
    claim = take(tmp_path, "a1")
    assert claim is not None
    age(claim.path, 1000)
    renewed, renew = threading.Event(), os.utime
    monkeypatch.setattr(claims.os, "utime", lambda path: (renew(path), renewed.set()))
    with claim:
        assert renewed.wait(60)
        assert time.time() - claim.path.stat().st_mtime < 500


def test_a_holder_is_named_once_however_long_it_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, named = claim_file(tmp_path), list[str]()
    pauses = iter([lambda: None, lambda: None, path.unlink])
    monkeypatch.setattr(claims.time, "sleep", lambda _: next(pauses)())
    with claims.wait_for(tmp_path, "a1", named.append) as claim:
        assert claim.path == path
    assert named == [f"{platform.node()}, process {os.getpid()}"]


def test_a_claim_that_another_process_takes_over_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes over between the look at the stale claim and the guard that lets one process remove it."""

    @contextmanager
    def exclusive_after_another(_: Path) -> Iterator[bool]:
        claim_file(tmp_path)
        yield True

    path = claim_file(tmp_path, pid=dead_process())
    monkeypatch.setattr(claims, "_exclusive", exclusive_after_another)
    assert take(tmp_path, "a1") is None
    assert path.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_full_disk_leaves_no_empty_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_full(descriptor: int, mode: str) -> IO[bytes]:
        os.close(descriptor)
        return Path("/dev/full").open(mode)

    monkeypatch.setattr(claims.os, "fdopen", open_full)
    with pytest.raises(StoreError, match="No space left on device"):
        take(tmp_path, "a1")
    assert not list((tmp_path / "claims").iterdir())


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "claims").write_text("")
    with pytest.raises(StoreError, match="cannot be written to"):
        take(tmp_path, "a1")


def test_a_full_disk_is_named_where_the_claim_of_another_machine_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touch(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    claim_file(tmp_path, host="far", place="far")
    monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(StoreError, match=r"cannot be written to any more \(No space left on device\)"):
        holder(tmp_path, "a1")


def test_what_cannot_be_tidied_is_named(tmp_path: Path) -> None:
    (tmp_path / "claims" / ".clock-0a1b2c3d").mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be written to"):
        claims.tidy(Store(tmp_path))


def taken(root: Path) -> Claim:
    claim = take(root, "a1")
    assert claim is not None
    return claim


def test_a_claim_is_confirmed_from_its_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with taken(tmp_path) as claim:
        claim.confirm(store, None)
        claim_file(tmp_path)
        with pytest.raises(ClaimLostError):
            claim.confirm(store, None)
        revoke(tmp_path, "a1")
        with pytest.raises(ClaimLostError):
            claim.confirm(store, None)


def test_a_run_that_another_process_has_stored_is_lost(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with taken(tmp_path) as claim:
        store.write(make_record(run_id="a1"))
        claim.confirm(store, store.written("a1"))
        with pytest.raises(ClaimLostError):
            claim.confirm(store, None)


@pytest.mark.parametrize("error", [OSError(errno.ESTALE, "stale"), OSError(errno.EMFILE, "files"), ValueError("{")])
def test_a_claim_that_is_briefly_unreadable_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(claims, "_CHECK_SECONDS", 0.01)
    monkeypatch.setattr(claims, "_PAUSE_SECONDS", 0.0)
    parse, reads = claims._parse, threading.Semaphore(0)

    def fail(_: Path) -> None:
        reads.release()
        raise error

    with taken(tmp_path) as claim:
        monkeypatch.setattr(claims, "_parse", fail)
        # Two reads by the thread that renews the claim.
        assert reads.acquire(timeout=30)
        assert reads.acquire(timeout=30)
        claim.check()
        with pytest.raises(StoreError, match="cannot be read any more"):
            claim.confirm(Store(tmp_path), None)
        monkeypatch.setattr(claims, "_parse", parse)
        claim.confirm(Store(tmp_path), None)


def test_a_claim_that_is_readable_a_moment_later_is_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_PAUSE_SECONDS", 0.0)
    written, errors = Store.written, iter([OSError(errno.ESTALE, "stale"), OSError(errno.EMFILE, "files")])

    def written_later(store: Store, run_id: str) -> int | None:
        if error := next(errors, None):
            raise error
        return written(store, run_id)

    monkeypatch.setattr(Store, "written", written_later)
    with taken(tmp_path) as claim:
        claim.confirm(Store(tmp_path), None)
    assert next(errors, None) is None


@pytest.mark.parametrize("call", ["read_text", "unlink"])
def test_a_claim_whose_file_is_briefly_in_use_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Otherwise nobody could execute the run as long as this process lives."""
    monkeypatch.setattr(claims, "_PAUSE_SECONDS", 0.0)
    working, errors = getattr(Path, call), iter([PermissionError("in use"), OSError(errno.ESTALE, "stale")])

    def work_later(path: Path, *arguments: object, **options: object) -> object:
        if error := next(errors, None):
            raise error
        return working(path, *arguments, **options)

    with taken(tmp_path) as claim:
        monkeypatch.setattr(Path, call, work_later)
    assert not claim.path.exists()


def test_what_processes_left_that_died_while_they_judged_a_claim_is_removed(tmp_path: Path) -> None:
    path = claim_file(tmp_path)
    path.with_name(".clock-0a1b2c3d").touch()
    path.with_name(".b2.takeover").write_bytes(path.read_bytes())
    dead = json.loads(path.read_text()) | {"pid": dead_process()}
    path.with_name(".a1.takeover").write_text(json.dumps(dead))
    claims.tidy(Store(tmp_path))
    # The guard of a process that is at it stays.
    assert sorted(file.name for file in path.parent.iterdir()) == [".b2.takeover", "a1.json"]


@pytest.mark.parametrize(("status", "kept"), [("done", False), ("failed", True), (None, True)])
def test_checkpoints_of_finished_runs_are_removed(tmp_path: Path, status: str | None, kept: bool) -> None:
    """The checkpoint of a failed run belongs to a later attempt."""
    store = Store(tmp_path)
    checkpoint = store.path("checkpoints", "a1")
    checkpoint.parent.mkdir()
    checkpoint.touch()
    if status:
        store.write(make_record(run_id="a1", status=status))
    claim_file(tmp_path, pid=dead_process())
    claims.tidy(store)
    assert checkpoint.exists() is kept
    assert holder(tmp_path, "a1") is None
    assert not list((tmp_path / "claims").iterdir())


def test_the_checkpoint_of_a_repetition_whose_process_died_is_kept(tmp_path: Path) -> None:
    """With ``--force``, the record is that of the run before."""
    store = Store(tmp_path)
    store.write(make_record(run_id="a1"))
    checkpoint = store.path("checkpoints", "a1")
    checkpoint.parent.mkdir()
    checkpoint.touch()
    os.utime(store.path("runs", "a1"), ns=(10**18, 10**18))
    claim_file(tmp_path, pid=dead_process())
    claims.tidy(store)
    assert checkpoint.exists()
    assert holder(tmp_path, "a1") is None


def test_an_unreadable_record_keeps_its_checkpoint(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for kind in ("runs", "checkpoints"):
        store.path(kind, "a1").parent.mkdir()
        store.path(kind, "a1").write_bytes(b"damaged")
    claims.tidy(store)
    assert store.path("checkpoints", "a1").exists()
