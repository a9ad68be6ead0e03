"""Unpack an archive or copy a folder without trusting it.

Every member must be a plain file or folder below the target; number of members, total size and compression ratio are
limited. Permissions, owners and times are not restored.
"""

from __future__ import annotations

import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from shipbench.errors import InputError

_ZIP_SUFFIXES = (".zip",)
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError)
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Limits:
    """The limits of an archive: unpacked bytes, members, and unpacked bytes per byte of the archive.

    VTAB-1k has less than 10 GB and 500,000 files, and its images hardly compress. The ratio applies only to archives
    that unpack to more than ``free_bytes``.
    """

    total_bytes: int = 60 * 10**9
    members: int = 2_000_000
    ratio: int = 100
    free_bytes: int = 64 * 10**6


LIMITS = Limits()


def is_archive(name: str) -> bool:
    """Return whether ``name`` has the suffix of an archive that ``unpack`` reads."""
    return name.lower().endswith(_ZIP_SUFFIXES + _TAR_SUFFIXES)


def unpack(source: Path, target: Path, limits: Limits = LIMITS) -> None:
    """Unpack a zip or tar file, or copy a folder, into the existing folder ``target``.

    Raises ``InputError`` naming the source if a member is not a plain file or folder below ``target``, or if the
    archive is damaged, encrypted or beyond a limit; files written before that stay in ``target``.
    """
    packed = source.stat().st_size if source.is_file() else None
    writer = _Writer(source, target, limits, packed)
    try:
        if source.is_dir():
            _copy_folder(source, writer)
        elif source.name.lower().endswith(_ZIP_SUFFIXES):
            _unpack_zip(source, writer)
        elif is_archive(source.name):
            _unpack_tar(source, writer)
        else:
            raise InputError(f"{source} is neither a folder nor an archive (.zip, .tar, .tar.gz, .tar.xz, .tar.bz2)")
    except _DAMAGED as error:
        raise InputError(f"{source} is damaged and cannot be unpacked: {error}") from error
    except OSError as error:
        raise InputError(f"cannot unpack {source}: {error}") from error


class _Writer:
    """Writes members below a folder and enforces the limits on their number and total size."""

    def __init__(self, source: Path, target: Path, limits: Limits, packed: int | None) -> None:
        self._source = source
        self._target = target
        self._limits = limits
        self._members = 0
        self._bytes = 0
        cap = limits.total_bytes
        self._cap = cap if packed is None else min(cap, max(limits.free_bytes, packed * limits.ratio))

    def folder(self, name: str) -> None:
        """Make a folder."""
        self._place(name).mkdir(parents=True, exist_ok=True)

    def file(self, name: str, content: IO[bytes]) -> None:
        """Write a file; raise ``FileExistsError`` if an earlier member has the same name."""
        place = self._place(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as out:
            while block := content.read(_BLOCK):
                self._bytes += len(block)
                if self._bytes > self._cap:
                    raise InputError(f"{self._source} unpacks to more than {self._cap} bytes; it cannot be VTAB-1k")
                out.write(block)

    def refuse(self, name: str, reason: str) -> InputError:
        """Return the error for a member that is not unpacked."""
        return InputError(f"{self._source}: member {name!r} {reason}")

    def _place(self, name: str) -> Path:
        self._members += 1
        if self._members > self._limits.members:
            raise InputError(f"{self._source} has more than {self._limits.members} members; it cannot be VTAB-1k")
        if any(ord(character) < 32 for character in name):
            raise self.refuse(name, "has control characters in its name")
        parts = name.replace("\\", "/").split("/")
        if parts[0] == "" or ":" in parts[0] or ".." in parts:
            raise self.refuse(name, "would be written outside the target folder")
        return self._target.joinpath(*(part for part in parts if part not in ("", ".")))


def _copy_folder(source: Path, writer: _Writer) -> None:
    for file in _walk(source):
        name = file.relative_to(source).as_posix()
        mode = file.lstat().st_mode
        if stat.S_ISDIR(mode):
            writer.folder(name)
        elif stat.S_ISREG(mode):
            with file.open("rb") as content:
                writer.file(name, content)
        else:
            raise writer.refuse(name, "is a link or a device")


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in (*folders, *sorted(files)):
            yield Path(parent, name)


def _unpack_zip(source: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            # orig_filename is the name as stored: zipfile cuts filename at a NUL and adapts its separators.
            name = member.orig_filename
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.flag_bits & 0x1:
                raise writer.refuse(name, "is encrypted")
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise writer.refuse(name, "is a link or a device")
            if member.is_dir():
                writer.folder(name)
                continue
            with archive.open(member) as content:
                writer.file(name, content)


def _unpack_tar(source: Path, writer: _Writer) -> None:
    with tarfile.open(source, mode="r|*") as archive:
        for member in archive:
            if member.isdir():
                writer.folder(member.name)
                continue
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                raise writer.refuse(member.name, "is a link or a device")
            with content:
                writer.file(member.name, content)
