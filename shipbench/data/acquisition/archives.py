"""Unpack an archive without trusting it, or copy a folder of the user.

Every member of an archive must be a file or folder below the target, or a link to one of the archive's own members, of
which a copy is written. Links inside a folder are followed wherever they lead. Number of members, total size and
compression ratio are limited, and so are the depth of folders and the size of a tar file's headers. Permissions,
owners and times are not restored.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from shipbench.errors import InputError
from shipbench.runtime.file_kinds import impostor

Parts: TypeAlias = tuple[str, ...]

_ZIP_SUFFIXES = (".zip",)
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError)
"""What reading a damaged archive raises, besides ``OSError``."""

_PIECE = re.compile(r"\.(z\d\d|(zip|7z|rar|tar|tgz|gz|xz|bz2)\.(\d{1,3}|[a-z]{2}|part\w*))$", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f]")
_DRIVE = re.compile(r"[A-Za-z]:")
_DEVICE = ("is a device or a pipe", "remove it")
_BLOCK = 1 << 20
_LONGEST_LINK = 4096
_MOST_LINKS = 40
_DEEPEST = 100
_LONGEST_HEADER = 1 << 20
_ENDLESS = f"in a circle or through more than {_MOST_LINKS} others"


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

    Raises ``InputError`` naming the source if a member of an archive is not a file, a folder or a link to another
    member, if its name leads out of ``target``, and if the archive is damaged, encrypted or beyond a limit; files
    written before that stay in ``target``.
    """
    packed = source.stat().st_size if source.is_file() else None
    writer = _Writer(source, target, limits, packed)
    try:
        if source.is_dir():
            writer.copy_folder(source)
        elif source.name.lower().endswith(_ZIP_SUFFIXES):
            _unpack_zip(source, writer)
        elif is_archive(source.name):
            _unpack_tar(source, writer)
        else:
            raise InputError(f"{source} {_why_no_archive(source)}")
    except DAMAGED as error:
        raise InputError(f"{source} {_why_damaged(source, error)}") from error
    except OSError as error:
        raise InputError(f"cannot unpack {source}: {error}") from error


def _why_no_archive(source: Path) -> str:
    if _PIECE.search(source.name):
        return "is one piece of a split archive; join the pieces into one file, or unpack them, and import the result"
    return (
        "is neither a folder nor an archive (.zip, .tar, .tar.gz, .tar.xz, .tar.bz2); if it is an archive of another "
        "kind, unpack it yourself and import the folder"
    )


def _why_damaged(source: Path, error: Exception) -> str:
    if isinstance(error, NotImplementedError):
        return f"is packed in a way that Python cannot read ({error}); unpack it yourself and import the folder"
    with source.open("rb") as stream:
        start = stream.read(512)
    # A zip that begins as one is damaged further on.
    clause = None if start.startswith((b"PK", b"\x1f\x8b")) else impostor(start, "name an archive or a folder")
    return clause or f"is damaged or incomplete and cannot be unpacked ({error}); get it again"


@dataclass(frozen=True)
class _Link:
    """A link of an archive: the target as written, relative to ``folder``, a path below the archive's root."""

    folder: Parts
    target: str


class _Writer:
    """Writes members below a folder and enforces the limits on their number and total size.

    Members are named by their ``Parts``, the names of the folders and of the file, which ``judge`` returns.
    """

    def __init__(self, source: Path, target: Path, limits: Limits, packed: int | None) -> None:
        self._source = source
        self._by_hand = "{}" if source.is_dir() else "unpack the archive yourself, {}, and import the folder"
        self._target = target
        self._limits = limits
        self._members = 0
        self._bytes = 0
        self._links: dict[Parts, _Link] = {}
        cap = limits.total_bytes
        self._cap = cap if packed is None else min(cap, max(limits.free_bytes, packed * limits.ratio))

    def judge(self, name: str) -> Parts:
        """Return the parts of a member's name, and count the member.

        Raises ``InputError`` if the name leads out of the target folder or too deep into it, and for too many members.
        """
        self._members += 1
        if self._members > self._limits.members:
            raise self._beyond_limit(f"has more than {self._limits.members} members")
        if _CONTROL.search(name):
            raise self.refuse(name, "has control characters in its name", "rename the file")
        parts = name.replace("\\", "/").split("/")
        if parts[0] == "" or any(map(_DRIVE.match, parts)) or ".." in parts:
            raise self.refuse(name, "would be written outside the target folder", "move the file into it")
        if len(parts) > _DEEPEST:
            raise self.refuse(f"{name[:80]}...", f"is more than {_DEEPEST} folders deep", "move the file up")
        return tuple(part for part in parts if part not in ("", "."))

    def require_room(self, needed: int) -> None:
        """Raise ``InputError`` if the disk has fewer than ``needed`` bytes free, before the first is written."""
        free = shutil.disk_usage(self._target).free
        # An archive beyond the limits is refused for that reason.
        if free < needed <= self._cap:
            raise InputError(
                f"{self._source} unpacks to {needed / 1e9:.1f} GB, but the disk has {free / 1e9:.1f} GB free; make "
                "room or import into a folder on another disk"
            )

    def folder(self, parts: Parts) -> None:
        """Make a folder."""
        self._place(parts).mkdir(parents=True, exist_ok=True)

    def file(self, parts: Parts, content: IO[bytes]) -> None:
        """Write a file; raise ``InputError`` if an earlier member has the same name."""
        place = self._place(parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            raise self.refuse("/".join(parts), "exists twice", "keep one of the two")
        with place.open("xb") as out:
            while block := content.read(_BLOCK):
                self._bytes += len(block)
                if self._bytes > self._cap:
                    raise self._beyond_limit(f"unpacks to more than {self._cap} bytes")
                out.write(block)

    def link(self, parts: Parts, target: str, *, hard: bool = False) -> None:
        """Note a link, which ``copy_links`` replaces by a copy; a hard link's target is relative to the root."""
        target = target.replace("\\", "/")
        if target.startswith("/") or any(map(_DRIVE.match, target.split("/"))):
            raise self._refuse_link(parts, "out of the archive")
        self._links[parts] = _Link(() if hard else parts[:-1], target)

    def copy_links(self) -> None:
        """Write a copy of the file or folder that each link leads to, links inside such a folder first."""
        copied: set[Parts] = set()
        for parts in self._links:
            self._copy_link(parts, copied, ())

    def copy_folder(self, folder: Path, parts: Parts = ()) -> None:
        """Copy what is below ``folder``, following links; ``parts`` name the copy."""
        for file in _walk(folder, shunned=self._target):
            copy = self.judge("/".join((*parts, *file.relative_to(folder).parts)))
            if file.is_dir():
                self.folder(copy)
            elif file.is_file():
                with file.open("rb") as content:
                    self.file(copy, content)
            else:
                nature = "a link to a file that does not exist" if file.is_symlink() else "neither a file nor a folder"
                raise InputError(f"{file} is {nature}; remove it or put a file in its place")

    def refuse(self, name: str, reason: str, remedy: str) -> InputError:
        """Return the error for a member that is not written; ``remedy`` is what to do in the unpacked folder."""
        return InputError(f"{self._source}: member {name!r} {reason}; {self._by_hand.format(remedy)}")

    def _copy_link(self, parts: Parts, copied: set[Parts], above: tuple[Parts, ...]) -> None:
        if parts in copied:
            return
        origin = self._resolve(parts)
        if parts in above or parts[: len(origin)] == origin:
            raise self._refuse_link(parts, "to a folder that holds it")
        if len(above) > _MOST_LINKS:
            raise self._refuse_link(parts, _ENDLESS)
        place = self._target.joinpath(*origin)
        # An archive may have as many links to files as images, so the search for links inside is left to folders.
        if not place.is_file():
            for inner in [inner for inner in self._links if inner[: len(origin)] == origin]:
                self._copy_link(inner, copied, (*above, parts))
        if place.is_dir():
            self.folder(parts)
            self.copy_folder(place, parts)
        elif place.is_file():
            with place.open("rb") as content:
                self.file(parts, content)
        else:
            raise self._refuse_link(parts, f"to {'/'.join(origin)}, which the archive lacks")
        copied.add(parts)

    def _resolve(self, parts: Parts) -> Parts:
        """Return the path of the member that a link leads to in the end, through other links if need be."""
        place, pending, followed = list(parts[:-1]), [parts[-1]], 0
        while pending:
            part = pending.pop()
            if part == "..":
                if not place:
                    raise self._refuse_link(parts, "out of the archive")
                place.pop()
            elif part not in ("", "."):
                place.append(part)
            link = self._links.get(tuple(place))
            if link is not None:
                followed += 1
                place = list(link.folder)
                pending += reversed(link.target.split("/"))
            if followed > _MOST_LINKS:
                raise self._refuse_link(parts, _ENDLESS)
        return tuple(place)

    def _refuse_link(self, parts: Parts, whither: str) -> InputError:
        return self.refuse("/".join(parts), f"is a link {whither}", "replace the link with a file or remove it")

    def _place(self, parts: Parts) -> Path:
        return self._target.joinpath(*parts)

    def _beyond_limit(self, excess: str) -> InputError:
        remedy = self._by_hand.format("remove what is not part of VTAB-1k")
        return InputError(f"{self._source} {excess}, more than VTAB-1k has; {remedy}")


def _walk(folder: Path, *, shunned: Path | None = None, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield everything below ``folder``, through links to folders; raise ``InputError`` if that would never end."""
    here = folder.resolve()
    if here in above:
        raise InputError(f"{folder} is a link to a folder that holds it; remove it")
    if shunned is not None and shunned.is_relative_to(here):
        raise InputError(f"{folder} holds the folder to import into, which would be copied; import into another folder")
    for child in sorted(folder.iterdir(), key=lambda path: (not path.is_dir(), path.name)):
        yield child
        if child.is_dir():
            yield from _walk(child, shunned=shunned, above=(*above, here))


def _unpack_zip(source: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(source) as archive:
        writer.require_room(sum(member.file_size for member in archive.infolist()))
        for member in archive.infolist():
            # orig_filename is the name as stored: zipfile cuts filename at a NUL and adapts its separators.
            name = member.orig_filename
            parts, kind = writer.judge(name), stat.S_IFMT(member.external_attr >> 16)
            if member.flag_bits & 0x1:
                raise writer.refuse(name, "is encrypted", "decrypt it")
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                raise writer.refuse(name, *_DEVICE)
            if kind == stat.S_IFDIR or name.endswith(("/", "\\")):
                writer.folder(parts)
                continue
            with archive.open(member) as content:
                if kind == stat.S_IFLNK:
                    writer.link(parts, os.fsdecode(content.read(_LONGEST_LINK)))
                else:
                    writer.file(parts, content)
    writer.copy_links()


class _Meter:
    """Reads an archive on behalf of ``tarfile`` and stops it when it asks for more than any real header has."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._bytes = stream, 0
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        """Return the next bytes; raise ``ReadError`` before those that are too many are read."""
        self._bytes += size
        if self._bytes > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self._bytes} bytes")
        content: bytes = self._stream.read(size)
        return content


class _Archive(tarfile.TarFile):
    """A tar file whose headers do not fill the memory, and from which members are read once, one after the other.

    tarfile reads long names, other facts and the maps of sparse files whole, and keeps every member. A few bytes of a
    packed archive may stand for gigabytes of each.
    """

    def next(self) -> tarfile.TarInfo | None:
        """Return the next member; raise ``ReadError`` if longer headers than any real ones come before it."""
        self.members.clear()  # type: ignore[attr-defined]
        stream = self.fileobj
        self.fileobj = _Meter(stream)  # type: ignore[assignment]
        try:
            member = super().next()
        except RecursionError as error:
            raise tarfile.ReadError("headers upon headers") from error
        finally:
            self.fileobj = stream
        # Facts about all members that follow add up from one header to the next.
        facts = sum(len(name) + len(value) for name, value in self.pax_headers.items())
        if facts > _LONGEST_HEADER:
            raise tarfile.ReadError(f"headers of {facts} bytes")
        return member


def open_tar(source: Path) -> tarfile.TarFile:
    """Open a tar file, packed or not, to be read from its start to its end."""
    return _Archive.open(source, mode="r|*")


def _unpack_tar(source: Path, writer: _Writer) -> None:
    with open_tar(source) as archive:
        for member in archive:
            parts = writer.judge(member.name)
            if member.isdir():
                writer.folder(parts)
            elif member.issym() or member.islnk():
                writer.link(parts, member.linkname, hard=member.islnk())
            elif (content := archive.extractfile(member) if member.isreg() else None) is not None:
                with content:
                    writer.file(parts, content)
            else:
                raise writer.refuse(member.name, *_DEVICE)
    writer.copy_links()
