"""The identities of image files, remembered between commands.

A file is hashed once. Its identity is then kept in the cache folder beside size, times and inode, and a file of which
any of these has changed is hashed again. There is one such memory for each root folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from shipbench.data.images import ImageIdentity, identify_bytes, read_bytes
from shipbench.data.parallel import map_items
from shipbench.errors import InputError, system_reason
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.files import atomic_path

# Size, time of modification, time of change (both in ns), inode.
_State: TypeAlias = tuple[int, int, int, int]
_Memory: TypeAlias = dict[str, tuple[_State, ImageIdentity]]

TICK_NS = 2_000_000_000
"""A file rewritten within one tick of the file system's clock keeps its times, so younger files are not remembered.

The clock of Lustre counts seconds, that of FAT every other second.
"""

_BLOCK = 16_384
"""Files hashed between two writes of the memory: what an interrupted command does not have to hash again."""


def identify_files(root: Path, paths: Sequence[str], title: str, jobs: int | None = None) -> dict[str, ImageIdentity]:
    """Return the identity of each image file, by its path relative to ``root``; hash only new and changed files.

    Files are hashed on ``jobs`` threads or one per usable core; ``title`` names them in the progress display. An
    interrupted command has hashed most of its files for the next. Raises ``InputError`` if a file is missing or cannot
    be read.
    """
    states = {path: _state(os.path.join(root, path)) for path in paths}  # noqa: PTH118
    memo = _memo(hashlib.sha256(os.fsencode(root.resolve())).hexdigest())
    memory = _recall(memo)
    identities = {
        path: memory[path][1] for path, state in states.items() if path in memory and memory[path][0] == state
    }
    missing = [path for path in states if path not in identities]
    for block, started in _in_blocks(lambda path: identify_bytes(read_bytes(root / path)), missing, title, jobs):
        identities |= block
        _remember(memo, memory, {path: (states[path], identity) for path, identity in block.items()}, started)
    return {path: identities[path] for path in states}


def identify_contained(
    paths: Sequence[str],
    files: Iterable[str],
    identify: Callable[[str], ImageIdentity],
    title: str,
    jobs: int | None = None,
    *,
    reader: object = None,
) -> dict[str, ImageIdentity]:
    """Return the identity of each image, by its path among the images that ``files`` hold together.

    ``identify`` reads one image. ``reader`` is what else decides the images, such as the column of a table, as JSON. No
    image is read again while all of this stays the same. An interrupted command has read most images for the next.
    Raises ``InputError`` if a file is missing.
    """
    states = _states(files)
    memo, newest = _memo_of(states, reader), _newest(states)
    memory = _recall(memo)
    identities = {path: memory[path][1] for path in paths if path in memory}
    missing = [path for path in dict.fromkeys(paths) if path not in identities]
    for block, started in _in_blocks(identify, missing, title, jobs):
        identities |= block
        entries = {path: ((0, newest, 0, 0), identity) for path, identity in block.items()}
        _remember(memo, memory, entries, started)
    return {path: identities[path] for path in paths}


def remembered(files: Iterable[str], reader: object, compute: Callable[[], Any]) -> Any:
    """Return what ``compute`` returns, from the cache while ``files`` and ``reader`` stay the same; all of it is JSON.

    Raises ``InputError`` if a file is missing.
    """
    started, states = time.time_ns(), _states(files)
    memo = _memo_of(states, reader)
    content = read_memo(memo)
    if content is None:
        content = compute()
        if _newest(states) <= started - TICK_NS:
            write_memo(memo, content)
    return content


def content_of(images: Iterable[ImageIdentity], *, upright: bool) -> str:
    """Return the SHA-256 (hex) of a split's images in order, which two tasks may share, without their labels.

    ``upright`` says whether they are decoded as their EXIF orientation says, which decides their pixels.
    """
    digest = hashlib.sha256(b"upright" if upright else b"as stored")
    for image in images:
        digest.update(bytes.fromhex(image.sha256))
    return digest.hexdigest()


def read_memo(memo: Path) -> Any:
    """Return what ``write_memo`` wrote to a file; None if it is absent or has changed since."""
    try:
        digest, text = memo.read_text().split(" ", 1)
        return json.loads(text) if digest == _digest(text) else None
    except (OSError, ValueError):
        return None


def write_memo(memo: Path, content: object) -> None:
    """Write ``content`` as JSON; a failed write (a full disk) only makes the next command hash again."""
    text = json.dumps(content)
    with suppress(OSError), atomic_path(memo) as temporary:
        temporary.write_text(f"{_digest(text)} {text}")


def _in_blocks(
    identify: Callable[[str], ImageIdentity], paths: Sequence[str], title: str, jobs: int | None
) -> Iterator[tuple[dict[str, ImageIdentity], int]]:
    """Yield blocks of identities by path, and when (``time.time_ns``) hashing began."""
    if not paths:
        return
    started = time.time_ns()
    block: dict[str, ImageIdentity] = {}
    identities = map_items(identify, paths, f"fingerprinting {title}", jobs)
    for path, identity in zip(paths, identities, strict=True):
        block[path] = identity
        if len(block) == _BLOCK:
            yield block, started
            block = {}
    yield block, started


def _states(files: Iterable[str]) -> dict[str, _State]:
    return {file: _state(file) for file in sorted(set(files))}


def _newest(states: Mapping[str, _State]) -> int:
    return max((max(state[1:3]) for state in states.values()), default=0)


def _state(file: Path | str) -> _State:
    try:
        # Of a hundred thousand files, pathlib would take five times as long.
        status = os.stat(file)  # noqa: PTH116
    except OSError as error:
        raise InputError(f"cannot read {file}: {system_reason(error)}") from error
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _memo(digest: str) -> Path:
    return cache_dir("fingerprints") / f"files-{digest[:32]}.json"


def _memo_of(states: Mapping[str, _State], reader: object) -> Path:
    return _memo(_digest(json.dumps([states, reader])))


def _recall(memo: Path) -> _Memory:
    """Return what the memory holds; nothing if it is absent or has changed since it was written."""
    try:
        return dict(_parsed(memo, _state(memo)))
    except InputError:
        return {}


@lru_cache(maxsize=8)
def _parsed(memo: Path, state: _State) -> _Memory:
    """Return what a memory in this ``state`` holds; a command identifies its images several times."""
    try:
        return {
            path: ((size, modified, changed, inode), ImageIdentity(sha256, kind))
            for path, (size, modified, changed, inode, sha256, kind) in read_memo(memo).items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}


def _remember(memo: Path, memory: _Memory, entries: _Memory, started: int) -> None:
    """Add entries to the memory and write it, except those of files changed too recently for their times to tell."""
    memory |= {path: entry for path, entry in entries.items() if max(entry[0][1:3]) <= started - TICK_NS}
    write_memo(memo, {path: [*state, image.sha256, image.kind] for path, (state, image) in memory.items()})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
