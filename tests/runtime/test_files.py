"""Files: written atomically, hashed in pieces; locks where the file system has them."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import sys
from pathlib import Path

import filelock
import pytest

from shipbench.errors import InputError
from shipbench.runtime import files
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.files import atomic_path, check_output, file_sha256, taking_turns


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    def write_half() -> None:
        with atomic_path(tmp_path / "kept.txt") as temporary:
            temporary.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_half()
    assert not list(tmp_path.iterdir())


def test_a_replaced_file_is_the_old_one_until_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "kept.txt"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_a_file_has_the_permissions_of_any_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            # Other threads would make files that all users may write.
            patch.delattr(os, "umask")
            with atomic_path(tmp_path / "file") as temporary:
                temporary.write_text("content")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    content = bytes(i % 251 for i in range(size))
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_file_is_synced_through_a_handle_that_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows syncs no other handle."""
    target, named_before = tmp_path / "kept.txt", list[bool]()

    def sync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        named_before.append(target.exists())

    monkeypatch.setattr(os, "fsync", sync)
    with atomic_path(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    # Once, and before the file has its name: a power cut leaves a whole file or none.
    assert named_before == [False]


def test_a_file_is_written_where_permissions_cannot_be_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    with atomic_path(tmp_path / "kept.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "kept.txt").read_text() == "new"


@pytest.mark.parametrize(("refusals", "content"), [(2, "new"), (3, "old")])
def test_a_file_that_another_process_has_open_is_replaced_a_moment_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int, content: str
) -> None:
    """Windows replaces no file that is open; the other process may keep it open for good."""
    target, replace, left = tmp_path / "kept.txt", Path.replace, iter(range(refusals))
    target.write_text("old")

    def replace_if_closed(temporary: Path, place: Path) -> Path:
        if next(left, None) is not None:
            raise PermissionError(errno.EACCES, "Access is denied")
        return replace(temporary, place)

    monkeypatch.setattr(files, "_REPLACE_ATTEMPTS", 3)
    monkeypatch.setattr(files, "_REPLACE_PAUSE", 0.0)
    monkeypatch.setattr(Path, "replace", replace_if_closed)
    try:
        with atomic_path(target) as temporary:
            temporary.write_text("new")
    except PermissionError:
        assert refusals == 3
    assert target.read_text() == content
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=["Lustre", "NFS", "a cloud"])
def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with (
        pytest.raises(InputError, match=f"{tmp_path} .*has no file locks.*; set SHIPBENCH_CACHE to a folder"),
        taking_turns(tmp_path / "a.lock", "waiting"),
    ):
        pass


def test_a_lock_file_that_cannot_be_written_is_no_lack_of_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(self: object, timeout: float | None = None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with pytest.raises(OSError, match="No space left"), taking_turns(tmp_path / "a.lock", "waiting"):
        pass


@pytest.mark.parametrize("below", ["", "reports/demo"])
def test_a_link_that_leads_nowhere_takes_no_folder(tmp_path: Path, below: str) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "unplugged" / "results")
    with pytest.raises(InputError, match=f"--output: .* cannot be written to, because of {link}; name another place"):
        check_output(link / below, "--output")


def test_a_new_file_replaces_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "unplugged" / "file.json")
    check_output(link, "--json", folder=False)
    with atomic_path(link) as temporary:
        temporary.write_text("content")
    assert link.read_text() == "content"


def test_a_cache_below_an_unknown_home_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SHIPBENCH_CACHE", "~/cache")
    assert cache_dir("demo") == tmp_path / "home" / "cache" / "demo"
    monkeypatch.setenv("SHIPBENCH_CACHE", "~nobody-has-this-name/cache")
    with pytest.raises(InputError, match="cache folder ~nobody-has-this-name/cache/demo names no known home folder"):
        cache_dir("demo")
    assert not list(tmp_path.glob("~*"))
