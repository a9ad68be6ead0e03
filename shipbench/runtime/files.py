"""Files: atomic writes, locks, hashes, TOML."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from shipbench.errors import InputError, system_reason
from shipbench.runtime.console import say

_CHUNK = 1 << 20
# Windows replaces no file that another process has open, as one that reads it for a moment.
_REPLACE_ATTEMPTS, _REPLACE_PAUSE = (20 if sys.platform == "win32" else 1), 0.1
# What a file system without locks answers: Lustre and NFS have them only if they are mounted so.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``target``, to be written in the block.

    When the block ends, the file is synced and renamed to ``target``; if it raises, the file is removed. ``target``
    therefore never holds part of a file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(target)
    # Not by tempfile, which restricts a file to its owner; results and caches have the permissions of any other new
    # file. The umask can only be read by setting it, for all threads.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        # Windows syncs no file that is open for reading only.
        with temporary.open("r+b") as stream:
            os.fsync(stream.fileno())
        _replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def look_up_anew(target: Path) -> None:
    """Have this machine ask the file system again which files are beside ``target``.

    A client of NFS remembers for up to a minute that a file was missing, unless it sees that the folder has changed. A
    process that is killed here leaves a temporary file of ``target``.
    """
    probe = _temporary(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        probe.touch()
    finally:
        probe.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    return target.parent / f".{target.name}.{secrets.token_hex(4)}.part"


def _replace(temporary: Path, target: Path) -> None:
    for attempt in range(1, _REPLACE_ATTEMPTS + 1):
        try:
            temporary.replace(target)
            return
        except PermissionError:
            if attempt == _REPLACE_ATTEMPTS:
                raise
            time.sleep(_REPLACE_PAUSE)


def check_output(path: Path, option: str, *, folder: bool = True) -> None:
    """Raise ``InputError``, which names ``option``, unless ``path`` can be a folder, or a file, to write to."""
    if path.exists() and path.is_dir() is not folder:
        raise InputError(f"{option}: {path} is a {'file; name a folder' if folder else 'folder; name a file'}")
    # A new file replaces a link, but no folder is made at the end of one that leads nowhere.
    reached = (path, *path.absolute().parents)
    place = next(place for place in reached if place.exists() or (place.is_symlink() and (folder or place != path)))
    if not (place == path or place.is_dir()) or not os.access(place, os.W_OK):
        raise InputError(f"{option}: {path} cannot be written to, because of {place}; name another place")


@contextmanager
def taking_turns(lock_file: Path, busy: str) -> Iterator[None]:
    """Run the block in one process at a time; print ``busy`` if another process holds ``lock_file``, and wait.

    Raises ``InputError`` if the cache folder, where ``lock_file`` lies, is on a file system without locks.
    """
    import filelock

    # Where a file system has no locks, filelock waits for ever or locks nothing, depending on its release.
    if not _has_locks(lock_file.parent):
        raise InputError(
            f"the file system of the cache folder {lock_file.parent} has no file locks; set SHIPBENCH_CACHE to a "
            "folder on another one, such as a local disk"
        )
    lock = filelock.FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        say(busy)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _has_locks(folder: Path) -> bool:
    """Return whether the file system of a folder has locks; those of Windows have."""
    if sys.platform == "win32":
        return True
    import fcntl

    with tempfile.TemporaryFile(dir=folder) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in _NO_LOCKS
    return True


def seen_from(path: Path, folder: Path) -> str:
    """Return a path relative to ``folder``, with slashes, or the whole path if it is on another drive of Windows."""
    try:
        return PurePath(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def expanded(path: str) -> Path:
    """Return a path in which ``~`` or ``~NAME`` is a user's home folder, unchanged where the system knows no such user.

    ``Path.expanduser`` raises ``RuntimeError`` then.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_toml(file: Path, what: str) -> dict[str, Any]:
    """Return the content of a TOML file; raise ``InputError``, which calls it ``what``, if it cannot be read."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        # Editors on Windows begin UTF-8 files with a byte-order mark.
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {file} cannot be read: it is not UTF-8; save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{what} {file} cannot be read: {system_reason(error)}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{what} {file} is not TOML: {error}") from error
    except RecursionError as error:
        raise InputError(f"{what} {file} cannot be read: its values are nested too deeply") from error
