"""The image cache: decoded and resized splits, kept on disk as uint8 arrays and memory-mapped from there.

A split is three files, each written to a temporary file and renamed: ``<key>.images.npy``, ``<key>.labels.npy`` and,
last, ``<key>.crc32`` with the checksums of the other two. Every process verifies each file once before using it, by
reading all of it: CRC-32 takes about 0.6 s per gigabyte, far less than any run over the images. A split that is damaged
or has no checksums is decoded again.
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
    """The files of one cached split."""

    images: Path
    labels: Path
    checksums: Path


def cached_split(
    key: str, title: str, size: int, open_split: Callable[[], NativeSplit], jobs: int | None = None
) -> Split:
    """Return the split cached under ``key``; decode it and resize it to ``size`` if it is absent or damaged.

    Only then is ``open_split`` called; its images are decoded on ``jobs`` threads or one per usable core. ``title``
    names the split in messages. If several processes need the same split, one decodes it while the others wait. Raises
    ``ShipbenchError`` if the cache folder cannot be written.
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
    """Return the number of bytes that ``cached_split`` would write for ``count`` images: 0 if the split is cached."""
    files = _files(key)
    return 0 if all(file.exists() for file in files) else count * (size * size * 3 + np.dtype(np.int64).itemsize)


def require_room(needed: int) -> None:
    """Raise ``InputError`` if the disk of the cache folder has fewer than ``needed`` bytes free."""
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
    # Verify before parsing: numpy evaluates the header as a Python literal, and a damaged one can be anything.
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
    status = file.stat()
    return _crc32(file, status.st_size, status.st_mtime_ns, status.st_ino)


@cache
def _crc32(file: Path, size: int, modified: int, inode: int) -> int:
    """Return the CRC-32 of a file; size, time and inode are cache keys, so a rewritten file is read again."""
    value = 0
    # Read, not mapped: a read error on a mapped page kills the process.
    with file.open("rb") as stream_:
        while piece := stream_.read(_PIECE):
            value = zlib.crc32(piece, value)
    return value


def _write(files: _Files, title: str, size: int, split: NativeSplit, jobs: int | None) -> None:
    with atomic_path(files.images) as temporary:
        _write_images(temporary, split, size, f"decoding {title}", jobs)
    with atomic_path(files.labels) as temporary, temporary.open("wb") as stream_:
        np.save(stream_, split.labels.astype(np.int64))
    with atomic_path(files.checksums) as temporary:
        temporary.write_text(_checksums(files))


def _write_images(file: Path, split: NativeSplit, size: int, description: str, jobs: int | None) -> None:
    # The map writes only the header and sets the file's length. Pixels are written with ordinary writes, because a full
    # disk then raises an error, whereas storing to a mapped page would kill the process.
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
