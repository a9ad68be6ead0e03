"""Arrays in an ``.npz`` file, and single rows of one without loading the others: a file may exceed the memory.

NumPy stores each array as a member of a zip archive, verbatim (``savez``) or deflated (``savez_compressed``). Deflated
bytes can be unpacked only from the start, so the state of the unpacker is remembered at the start of every block of
rows that has been passed: 60 KB for 8 MB of rows. Nothing is unpickled.
"""

from __future__ import annotations

import math
import mmap
import struct
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from shipbench.errors import InputError, one_line, system_reason
from shipbench.runtime.file_kinds import impostor

_BLOCK_BYTES = 1 << 23
_KEPT_BYTES = 1 << 28
"""Bytes of unpacked rows that an array keeps: readers go through a split roughly in order."""

# A remembered state holds up to as many packed bytes.
_PACKED_BYTES = 1 << 14
_PIECE_BYTES = 1 << 16
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, ValueError, EOFError, RuntimeError)


@dataclass(frozen=True)
class Header:
    """The shape and type of an array, whether its first axis varies fastest, and where in its member it begins."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool
    start: int


class ArrayFile:
    """An ``.npz`` file; raises ``InputError`` if it is none, and for an array that holds Python objects."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            with zipfile.ZipFile(file) as archive:
                members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        except zipfile.BadZipFile as error:
            raise InputError(f"{file} {_why_no_archive(file)}") from error
        except OSError as error:
            raise InputError(f"cannot read {file}: {system_reason(error)}") from error
        self._members = {info.filename.removesuffix(".npy"): info for info in members}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arrays."""
        return tuple(self._members)

    def header(self, name: str) -> Header:
        """Return the description of an array without reading its values."""
        with self._opened(name) as stream:
            return self._header(name, stream)

    def values(self, name: str) -> NDArray[Any]:
        """Return a whole array."""
        self.header(name)
        with self._opened(name) as stream:
            return npy_format.read_array(stream, allow_pickle=False)

    def rows(self, name: str) -> ArrayRows:
        """Return the rows of an array, unpacked on access."""
        return ArrayRows(self.file, name, self._members[name], self.header(name))

    def _header(self, name: str, stream: IO[bytes]) -> Header:
        version = npy_format.read_magic(stream)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, is_fortran, dtype = read(stream)
        header = Header(shape, dtype, is_fortran and len(shape) > 1, stream.tell())
        if dtype.hasobject:
            raise InputError(f"{self.file}: {name} holds Python objects, which are never unpickled; save plain numbers")
        if self._members[name].compress_type not in _UNPACKERS:
            raise zipfile.BadZipFile("it is not packed as NumPy does it")
        if header.start + math.prod(shape) * dtype.itemsize != self._members[name].file_size:
            raise EOFError("its size does not fit its shape")
        return header

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        with (
            _explained(self.file, name),
            zipfile.ZipFile(self.file) as archive,
            archive.open(self._members[name]) as stream,
        ):
            yield stream


class ArrayRows:
    """The rows of one array in C order; several threads read them at once."""

    def __init__(self, file: Path, name: str, member: zipfile.ZipInfo, header: Header) -> None:
        self._file, self._name, self._member, self._header = file, name, member, header
        self._row_bytes = header.dtype.itemsize * math.prod(header.shape[1:])
        self._per_block = max(1, _BLOCK_BYTES // max(1, self._row_bytes))
        self._lock = threading.Lock()
        self._marks: list[_Mark] = []
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()

    def row(self, index: int) -> NDArray[Any]:
        """Return one row, read-only; raise ``InputError`` if the file is damaged."""
        block = index // self._per_block
        with self._lock, _explained(self._file, self._name):
            while block not in self._kept:
                # Blocks that no reader has passed are unpacked one after the other.
                self._unpack(min(block, max(0, len(self._marks) - 1)))
            self._kept.move_to_end(block)
            return self._kept[block][index % self._per_block]

    def _unpack(self, block: int) -> None:
        count = min(self._per_block, self._header.shape[0] - block * self._per_block)
        with self._file.open("rb") as stream:
            if not self._marks:
                self._marks.append(_first_mark(stream, self._member, self._header.start))
            mark = self._marks[block].copy()
            # Of its own pages, which return to the system: threads that free blocks of the heap leave holes in it.
            data = mmap.mmap(-1, count * self._row_bytes)
            mark.read(stream, memoryview(data))
        if (block + 1) * self._per_block >= self._header.shape[0] and mark.checksum != self._member.CRC:
            raise zipfile.BadZipFile("its checksum is wrong")
        if block + 1 == len(self._marks):
            self._marks.append(mark)
        rows = np.frombuffer(data, self._header.dtype).reshape(count, *self._header.shape[1:])
        rows.flags.writeable = False
        self._kept[block] = rows
        while len(self._kept) > 1 and sum(rows.nbytes for rows in self._kept.values()) > _KEPT_BYTES:
            self._kept.popitem(last=False)


class _Unpacker(Protocol):
    """A ``zlib`` decompression object, or the stand-in for bytes that are not compressed."""

    @property
    def unconsumed_tail(self) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...

    def copy(self) -> _Unpacker: ...


class _Verbatim:
    """Unpacks bytes that are not compressed."""

    eof = False
    unconsumed_tail = b""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        self.unconsumed_tail = data[max_length:]
        return data[:max_length]

    def copy(self) -> _Verbatim:
        return _Verbatim()


_UNPACKERS: dict[int, Callable[[], _Unpacker]] = {
    zipfile.ZIP_STORED: _Verbatim,
    zipfile.ZIP_DEFLATED: lambda: zlib.decompressobj(-zlib.MAX_WBITS),
}


@dataclass
class _Mark:
    """A place in a member: the position in the file, the unpacker there, the CRC-32 of what it has unpacked."""

    position: int
    unpacker: _Unpacker
    checksum: int = 0

    def copy(self) -> _Mark:
        return _Mark(self.position, self.unpacker.copy(), self.checksum)

    def read(self, stream: IO[bytes], target: memoryview) -> None:
        """Unpack the next bytes into ``target``, until it is full, and move behind them."""
        done = 0
        while done < len(target):
            stream.seek(self.position)
            packed = stream.read(_PACKED_BYTES)
            data = self.unpacker.decompress(packed, min(len(target) - done, _PIECE_BYTES))
            if not data and (not packed or self.unpacker.eof):
                raise EOFError("it ends early")
            self.position += len(packed) - len(self.unpacker.unconsumed_tail)
            self.checksum = zlib.crc32(data, self.checksum)
            target[done : done + len(data)] = data
            done += len(data)


def _first_mark(stream: IO[bytes], member: zipfile.ZipInfo, start: int) -> _Mark:
    """Return the mark at byte ``start`` of a member, whose own header in the archive precedes it."""
    stream.seek(member.header_offset)
    signature, name, extra = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    if signature != b"PK\x03\x04":
        raise zipfile.BadZipFile("it is not where the archive says")
    mark = _Mark(member.header_offset + _LOCAL_HEADER.size + name + extra, _UNPACKERS[member.compress_type]())
    mark.read(stream, memoryview(bytearray(start)))
    return mark


@contextmanager
def _explained(file: Path, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot read {file}: {system_reason(error)}") from error
    except _BROKEN as error:
        raise InputError(f"{file}: the array {name} cannot be read: {one_line(error)}; get the file again") from error


def _why_no_archive(file: Path) -> str:
    with file.open("rb") as stream:
        start = stream.read(512)
    if start.startswith(b"PK\x03\x04"):
        return "is truncated or damaged; get the file again"
    return impostor(start, "save the arrays with numpy.savez") or "is not an npz file; save the arrays with numpy.savez"
