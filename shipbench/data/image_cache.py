"""The image cache: decoded images of a split, kept on disk as raw 8-bit RGB and memory-mapped from there.

A split is two files: ``<key>.rgb``, the pixels, and ``<key>.journal``, the shape of the pixels and the CRC-32 of every
chunk of 64 images. A chunk enters the journal once its pixels are written, so a command that was killed is continued by
the next. Every process verifies a split once before using it, by reading all of it, and decodes damaged chunks again.

Images that all have one size with fewer pixels than the requested square are kept at that size. They take less space,
and are resized when they are read.
"""

from __future__ import annotations

import shutil
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shipbench.data.conversions import conversion_of, transparency_notes
from shipbench.data.framing import Framing, resize
from shipbench.data.parallel import stream
from shipbench.data.types import NativeSplit
from shipbench.errors import InputError, ShipbenchError
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.console import say
from shipbench.runtime.files import atomic_path, taking_turns

_ADVICE = "set SHIPBENCH_CACHE to a folder with room"
_CHUNK = 64
_PROBES = 8

Opener: TypeAlias = Callable[[], NativeSplit]


class _Files(NamedTuple):
    """The files of one cached split."""

    pixels: Path
    journal: Path


class _Shape(NamedTuple):
    """The shape of cached pixels, without the three channels."""

    n: int
    height: int
    width: int

    @property
    def image_bytes(self) -> int:
        return self.height * self.width * 3

    @property
    def chunks(self) -> range:
        return range(-(-self.n // _CHUNK))

    def images(self, chunk: int) -> range:
        return range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, self.n))


@dataclass(frozen=True)
class _Journal:
    """What a journal says: the shape of the pixels, and the CRC-32 of the chunks written.

    It is ``damaged`` if a line does not match its own checksum.
    """

    shape: _Shape
    checksums: Mapping[int, int]
    damaged: bool

    @property
    def complete(self) -> bool:
        return len(self.checksums) == len(self.shape.chunks)


class _MixedSizesError(Exception):
    """The images do not all have one size, so they cannot be kept as they are."""


def cached_pixels(
    key: str, title: str, framing: Framing, split: NativeSplit, jobs: int | None = None
) -> NDArray[np.uint8]:
    """Return the images cached under ``key`` as ``(n, height, width, 3)``; decode those that are missing or damaged.

    The images are framed as ``framing`` says, or at their native size if all have one that is smaller. They are decoded
    on ``jobs`` threads or one per usable core. ``title`` names the split in messages. If several processes need the
    same images, one decodes them while the others wait. Raises ``InputError`` if an image cannot be decoded, and
    ``ShipbenchError`` if the cache folder cannot be written.
    """
    files, count = _files(key), len(split.labels)
    folder = files.pixels.parent
    pixels = _read(files, count)
    if pixels is not None:
        return pixels
    try:
        with taking_turns(folder / f"{key}.lock", f"waiting for another process to decode {title}"):
            pixels = _read(files, count)
            if pixels is None:
                _complete(files, _Decoding(split, framing, title, jobs))
                pixels = _read(files, count)
    except OSError as error:
        raise ShipbenchError(f"cannot cache images in {folder}: {error}; {_ADVICE}") from error
    if pixels is None:
        raise ShipbenchError(f"images cached in {folder} cannot be read back; {_ADVICE}")
    return pixels


def missing_bytes(key: str, count: int, framing: Framing, open_split: Opener) -> int:
    """Return the number of bytes that ``cached_pixels`` would write; 0 if all images are cached.

    If none is, a few images are decoded to see whether they will be kept at their native size.
    """
    files = _files(key)
    journal = _read_journal(files.journal) if files.pixels.exists() else None
    if journal is None or journal.shape.n != count:
        return count * _shape(open_split(), framing).image_bytes
    cached = sum(len(journal.shape.images(chunk)) for chunk in journal.checksums)
    return (count - cached) * journal.shape.image_bytes


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
    return _Files(folder / f"{key}.rgb", folder / f"{key}.journal")


def _read(files: _Files, count: int) -> NDArray[np.uint8] | None:
    """Return the mapped images if all are there and intact."""
    journal = _read_journal(files.journal)
    if journal is None or journal.damaged or not journal.complete or journal.shape.n != count:
        return None
    if len(_intact_chunks(files, journal)) < len(journal.shape.chunks):
        return None
    return np.memmap(files.pixels, np.uint8, "r", shape=(*journal.shape, 3))


def _shape(split: NativeSplit, framing: Framing) -> _Shape:
    """Return the shape to cache images in: native if those looked at have one size, smaller than the square."""
    count = len(split.labels)
    sizes = {split.open(int(index)).size for index in np.unique(np.linspace(0, count - 1, _PROBES).astype(int))}
    width, height = sizes.pop()
    if sizes or width * height >= framing.side**2:
        return _Shape(count, framing.side, framing.side)
    return _Shape(count, height, width)


@dataclass(frozen=True)
class _Decoding:
    """What to decode: a split, the squares that are wanted, the name in messages, the number of threads."""

    split: NativeSplit
    framing: Framing
    title: str
    jobs: int | None


class _Writer:
    """Writes chunks from any thread, the pixels first and then the line of the journal; closed by a ``with`` block.

    Threads that are still decoding after an error cannot write any more once it is closed. Nothing waits for the disk:
    after a power cut, the checksums tell which chunks have reached it.
    """

    def __init__(self, files: _Files, shape: _Shape, checksums: Mapping[int, int]) -> None:
        self._pixels, self._shape = files.pixels, shape
        _write_journal(files.journal, shape, checksums)
        with files.pixels.open("ab") as pixels:
            pixels.truncate(shape.n * shape.image_bytes)
        self._journal = files.journal.open("a")
        self._lock = threading.Lock()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._journal.close()

    def write(self, chunk: int, images: Iterable[NDArray[np.uint8]]) -> None:
        """Write a chunk's images; raise ``ValueError`` if the writer is closed."""
        checksum = 0
        with self._lock:
            # Closed journals raise here, before the pixels of a later attempt could be written to.
            self._journal.flush()
            target = self._pixels.open("r+b")
        # Ordinary writes, because a full disk then raises an error; storing to a mapped page would kill the process.
        with target:
            target.seek(chunk * _CHUNK * self._shape.image_bytes)
            for image in images:
                pixels = np.ascontiguousarray(image).data
                checksum = zlib.crc32(pixels, checksum)
                target.write(pixels)
        with self._lock:
            self._journal.write(_chunk_line(chunk, checksum))
            self._journal.flush()


def _complete(files: _Files, decoding: _Decoding) -> None:
    """Decode the images that are missing or damaged."""
    side = decoding.framing.side
    shape, checksums = _salvaged(files, decoding) or (_shape(decoding.split, decoding.framing), {})
    try:
        try:
            _decode(files, decoding, shape, checksums)
        except _MixedSizesError:
            _decode(files, decoding, _Shape(shape.n, side, side), {})
    except InputError:
        # Once the image is replaced, the split has another key.
        _discard(files)
        raise


def _salvaged(files: _Files, decoding: _Decoding) -> tuple[_Shape, dict[int, int]] | None:
    """Return the shape and the checksums of the intact chunks that an earlier command has left, if there are any."""
    journal = _read_journal(files.journal)
    if journal is not None and journal.shape.n != len(decoding.split.labels):
        journal = None
    intact = () if journal is None else _intact_chunks(files, journal)
    if files.pixels.exists():
        if journal is None or journal.damaged or len(intact) < len(journal.checksums):
            say(f"the cached images of {decoding.title} are damaged or have no checksum; decoding them again")
        elif intact:
            say(f"continuing to decode {decoding.title}, which an earlier command began")
    return (journal.shape, {chunk: journal.checksums[chunk] for chunk in intact}) if journal and intact else None


def _decode(files: _Files, decoding: _Decoding, shape: _Shape, checksums: Mapping[int, int]) -> None:
    """Write all chunks but those in ``checksums``; the journal has every finished chunk if this is interrupted."""
    if not checksums:
        # A process that has mapped the old file must not see it shrink.
        _discard(files)
    missing = [chunk for chunk in shape.chunks if chunk not in checksums]
    total = sum(len(shape.images(chunk)) for chunk in missing)
    with _Writer(files, shape, checksums) as writer:

        def work(start: int, _: int) -> Sequence[str]:
            chunk = missing[start // _CHUNK]
            marks: list[str] = []

            def images() -> Iterator[NDArray[np.uint8]]:
                for index in shape.images(chunk):
                    image = decoding.split.open(index)
                    marks.append(conversion_of(image))
                    yield _stored(image, shape, decoding.framing)

            writer.write(chunk, images())
            return marks

        conversions = list(stream(work, total, f"decoding {decoding.title}", decoding.jobs, _CHUNK))
    for note in transparency_notes(conversions, "decoded image"):
        say(f"{decoding.title}: {note}")
    # The times of a file tell nothing about changes as recent as these.
    _verified_chunks.cache_clear()


def _stored(image: Image.Image, shape: _Shape, framing: Framing) -> NDArray[np.uint8]:
    if (shape.height, shape.width) == (framing.side, framing.side):
        return resize(image, framing.side, framing.resize)
    if image.size != (shape.width, shape.height):
        raise _MixedSizesError
    return np.asarray(image)


def _discard(files: _Files) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _intact_chunks(files: _Files, journal: _Journal) -> tuple[int, ...]:
    """Return the chunks whose pixels match the journal, or none if the file has another length."""
    try:
        status = files.pixels.stat()
        if status.st_size != journal.shape.n * journal.shape.image_bytes:
            return ()
        state = (status.st_size, status.st_mtime_ns, status.st_ino)
        return _verified_chunks(files.pixels, state, journal.shape, tuple(sorted(journal.checksums.items())))
    except OSError:
        return ()


@cache
def _verified_chunks(
    file: Path, state: tuple[int, ...], shape: _Shape, checksums: tuple[tuple[int, int], ...]
) -> tuple[int, ...]:
    """Return the chunks of a file that match their checksums; a file in another ``state`` is read again."""
    # Imported late: a command that decodes nothing starts faster.
    from concurrent.futures import ThreadPoolExecutor

    def matches(entry: tuple[int, int]) -> bool:
        images = shape.images(entry[0])
        # Read, not mapped: a read error on a mapped page kills the process.
        with file.open("rb") as stream_:
            stream_.seek(images.start * shape.image_bytes)
            return zlib.crc32(stream_.read(len(images) * shape.image_bytes)) == entry[1]

    with ThreadPoolExecutor() as threads:
        intact = list(threads.map(matches, checksums))
    return tuple(chunk for (chunk, _), good in zip(checksums, intact, strict=True) if good)


def _write_journal(file: Path, shape: _Shape, checksums: Mapping[int, int]) -> None:
    lines = [_line(f"pixels {shape.n} {shape.height} {shape.width}")]
    lines += [_chunk_line(chunk, checksum) for chunk, checksum in sorted(checksums.items())]
    with atomic_path(file) as temporary:
        temporary.write_text("".join(lines))


def _read_journal(file: Path) -> _Journal | None:
    """Return the journal in a file, or None if there is none or its first line is damaged."""
    try:
        lines = file.read_text(encoding="ascii", errors="replace").splitlines(keepends=True)
        first = _payload(lines[0])
        if first is None or first[0] != "pixels":
            return None
        shape = _Shape(*map(int, first[1:]))
    except (OSError, ValueError, IndexError, TypeError):
        return None
    payloads = [_payload(line) for line in lines[1:]]
    checksums = {int(payload[1]): int(payload[2], 16) for payload in payloads if payload is not None}
    return _Journal(shape, checksums, damaged=None in payloads)


def _chunk_line(chunk: int, checksum: int) -> str:
    return _line(f"chunk {chunk} {checksum:08x}")


def _line(payload: str) -> str:
    return f"{payload} {zlib.crc32(payload.encode()):08x}\n"


def _payload(line: str) -> list[str] | None:
    """Return the words of a journal's line without its checksum, or None if it does not match its checksum."""
    payload = line[:-1].rpartition(" ")[0]
    return payload.split() if line == _line(payload) else None
