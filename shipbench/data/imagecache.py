"""Decode once: every split is kept on disk as uint8 arrays of the size it is used at, and memory-mapped from there.

A split is two files, ``<key>.images.npy`` and ``<key>.labels.npy``, each written aside and renamed, labels last. A
file that is not exactly as long as its header says, or that does not fit the other, is written again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shipbench.cache import atomic_path, cache_dir, taking_turns
from shipbench.data.images import resize
from shipbench.data.native import NativeSplit
from shipbench.data.parallel import stream
from shipbench.data.types import Split
from shipbench.errors import ShipbenchError

_ADVICE = "set SHIPBENCH_CACHE to a folder with room"


def cached_split(
    key: str, title: str, size: int, open_split: Callable[[], NativeSplit], jobs: int | None = None
) -> Split:
    """Return the split cached under ``key``, resizing it to ``size`` in parallel if it is absent or damaged.

    ``open_split`` is called only then; ``title`` names the split to whoever watches. Of several processes that want the
    same split, one draws it and the others wait. Raises ``ShipbenchError`` if the cache folder cannot be written.
    """
    folder = cache_dir("images")
    split = _read(folder, key, size)
    if split is not None:
        return split
    try:
        with taking_turns(folder / f"{key}.lock", f"waiting for another process to decode {title}"):
            split = _read(folder, key, size)
            if split is None:
                _write(_files(folder, key), title, size, open_split(), jobs)
                split = _read(folder, key, size)
    except OSError as error:
        raise ShipbenchError(f"cannot cache images in {folder}: {error}; {_ADVICE}") from error
    if split is None:
        raise ShipbenchError(f"images cached in {folder} cannot be read back; {_ADVICE}")
    return split


def _files(folder: Path, key: str) -> tuple[Path, Path]:
    return folder / f"{key}.images.npy", folder / f"{key}.labels.npy"


def _read(folder: Path, key: str, size: int) -> Split | None:
    images_file, labels_file = _files(folder, key)
    images, labels = _open(images_file, "uint8"), _open(labels_file, "int64")
    if images is None or labels is None or labels.ndim != 1 or images.shape != (len(labels), size, size, 3):
        return None
    return Split(images, np.array(labels))


def _open(file: Path, dtype: str) -> np.memmap[Any, Any] | None:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(array, np.memmap) or array.dtype != dtype:
        return None
    return array if file.stat().st_size == array.offset + array.nbytes else None


def _write(files: tuple[Path, Path], title: str, size: int, split: NativeSplit, jobs: int | None) -> None:
    images_file, labels_file = files
    with atomic_path(images_file) as temporary:
        _draw_into(temporary, split, size, f"decoding {title}", jobs)
    with atomic_path(labels_file) as temporary, temporary.open("wb") as stream_:
        np.save(stream_, split.labels.astype(np.int64))


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
