"""Decode once: every split is kept on disk as uint8 arrays of the size it is used at, and memory-mapped from there.

A split is three files, each written aside and renamed: ``<key>.images.npy``, ``<key>.labels.npy`` and, last,
``<key>.crc32`` with the checksums of the other two. Every process checks each file once before it uses it, by reading
it whole: CRC-32 takes about 0.6 s for a gigabyte, far less than any run over its images. What is damaged, or has no
checksum because an older version wrote it, is written again.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shipbench.data.images import resize
from shipbench.data.parallel import stream
from shipbench.data.types import NativeSplit, Split
from shipbench.errors import InputError, ShipbenchError
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.console import say
from shipbench.runtime.files import atomic_path, taking_turns

_ADVICE = "set SHIPBENCH_CACHE to a folder with room"
_PIECE = 1 << 20


class _Files(NamedTuple):
    """The files of a split."""

    images: Path
    labels: Path
    checksums: Path


def cached_split(
    key: str, title: str, size: int, open_split: Callable[[], NativeSplit], jobs: int | None = None
) -> Split:
    """Return the split cached under ``key``, resizing it to ``size`` in parallel if it is absent or damaged.

    ``open_split`` is called only then; ``title`` names the split to whoever watches. Of several processes that want the
    same split, one draws it and the others wait. Raises ``ShipbenchError`` if the cache folder cannot be written.
    """
    files = _files(key)
    folder = files.images.parent
    split = _read(files)
    if split is not None:
        return split
    try:
        with taking_turns(folder / f"{key}.lock", f"waiting for another process to decode {title}"):
            split = _read(files)
            if split is None:
                if files.images.exists():
                    say(f"the cached images of {title} are damaged or have no checksum; decoding them again")
                _write(files, title, size, open_split(), jobs)
                split = _read(files)
    except OSError as error:
        raise ShipbenchError(f"cannot cache images in {folder}: {error}; {_ADVICE}") from error
    if split is None:
        raise ShipbenchError(f"images cached in {folder} cannot be read back; {_ADVICE}")
    return split


def missing_bytes(key: str, count: int, size: int) -> int:
    """Return how many bytes ``cached_split`` has to write for a split of ``count`` images: none if it is there."""
    files = _files(key)
    return 0 if all(file.exists() for file in files) else count * (size * size * 3 + np.dtype(np.int64).itemsize)


def require_room(needed: int) -> None:
    """Raise ``InputError`` if the cache folder's disk has no room for so many more bytes."""
    folder = cache_dir("images")
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"the decoded images need {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free; {_ADVICE}"
        )


def _files(key: str) -> _Files:
    folder = cache_dir("images")
    return _Files(*(folder / f"{key}.{ending}" for ending in ("images.npy", "labels.npy", "crc32")))


def _read(files: _Files) -> Split | None:
    # The checksums first: a header with a changed bit can be anything, and numpy reads it as Python.
    try:
        if files.checksums.read_text() != _checksums(files):
            return None
        images = np.load(files.images, mmap_mode="r", allow_pickle=False)
        return Split(images, np.load(files.labels, allow_pickle=False))
    except (OSError, ValueError):
        return None


def _checksums(files: _Files) -> str:
    return f"{_checksum(files.images):08x} {_checksum(files.labels):08x}\n"


def _checksum(file: Path) -> int:
    facts = file.stat()
    return _crc32(file, facts.st_size, facts.st_mtime_ns, facts.st_ino)


@cache
def _crc32(file: Path, size: int, written: int, inode: int) -> int:
    """Return the CRC-32 of a file; a file that was written again has other facts, and is read again."""
    value = 0
    # Not through the map: where the disk cannot be read, a map kills the process.
    with file.open("rb") as stream_:
        while piece := stream_.read(_PIECE):
            value = zlib.crc32(piece, value)
    return value


def _write(files: _Files, title: str, size: int, split: NativeSplit, jobs: int | None) -> None:
    with atomic_path(files.images) as temporary:
        _draw_into(temporary, split, size, f"decoding {title}", jobs)
    with atomic_path(files.labels) as temporary, temporary.open("wb") as stream_:
        np.save(stream_, split.labels.astype(np.int64))
    with atomic_path(files.checksums) as temporary:
        temporary.write_text(_checksums(files))


def _draw_into(file: Path, split: NativeSplit, size: int, description: str, jobs: int | None) -> None:
    # The map only writes the header and the length. Pixels go through ordinary writes: a full disk is then an error
    # that can be reported, where a store to a mapped page would kill the process.
    shape = (len(split.labels), size, size, 3)
    offset = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape).offset

    def work(start: int, stop: int) -> list[None]:
        with file.open("r+b") as target:
            target.seek(offset + start * size * size * 3)
            for index in range(start, stop):
                target.write(resize(split.open(index), size).tobytes())
        return [None] * (stop - start)

    for _ in stream(work, len(split.labels), description, jobs):
        pass
