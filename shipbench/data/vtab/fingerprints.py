"""The fingerprint of a VTAB-1k task: a hash over every image and label, independent of where the folder is.

Hashing a real copy reads gigabytes, so the result is stored under a signature of what a directory listing gives: path,
label, size, times and inode of every listed file. A changed file changes the signature.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from os import stat_result
from pathlib import Path

from shipbench.data.identities import content_of
from shipbench.data.images import ImageIdentity, ImageKind, identify_bytes, image_format, read_bytes
from shipbench.data.parallel import map_items
from shipbench.data.scanning import scan_images
from shipbench.data.types import Identity
from shipbench.data.vtab.folder import ROLES, Role, TaskFolder
from shipbench.errors import InputError
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.files import atomic_path
from shipbench.tasks.catalogue import SplitName

_TICK_NS = 100_000_000


def identify(folder: TaskFolder, jobs: int | None = None) -> Identity:
    """Return the identity of a task: the stored one if no file has changed, else hashed in parallel.

    Raises ``InputError`` if a listed image is missing, unreadable or outside the task folder.
    """
    paths = [entry.path for role in _roles(folder) for entry in folder.entries[role]]
    scan = scan_images(folder.path, paths)
    if scan.faults:
        raise InputError(scan.faults[0])
    memo = cache_dir("fingerprints") / f"{folder.task.name}-{_signature(folder, scan.files)}.json"
    stored = _recall(memo)
    if stored is not None:
        return stored
    started = time.time_ns()
    images = map_items(
        lambda path: identify_bytes(read_bytes(folder.path / path)), paths, f"fingerprinting {folder.task.name}", jobs
    )
    identity = identity_of(folder, dict(zip(paths, images, strict=True)))
    if not _is_fresh(scan.files, started):
        _store(memo, identity)
    return identity


def identity_of(folder: TaskFolder, images: Mapping[str, ImageIdentity]) -> Identity:
    """Combine the identities of a task's images, given by path, into the identity of the task.

    The fingerprint is the SHA-256 of one record per entry of train800, val200 and test, in file order: role, path,
    label and image hash, separated by NUL and ended by a line feed. For a folder opened without its test split it
    covers the other two.
    """
    digest = hashlib.sha256()
    kinds: set[ImageKind] = set()
    for role in _roles(folder):
        for entry in folder.entries[role]:
            image = images[entry.path]
            digest.update(f"{role}\0{entry.path}\0{entry.label}\0{image.sha256}\n".encode())
            kinds.add(image.kind)
    return Identity(digest.hexdigest(), image_format(kinds), _contents(folder, images))


def _roles(folder: TaskFolder) -> list[Role]:
    return [role for role in ROLES if role in folder.entries]


def _contents(folder: TaskFolder, images: Mapping[str, ImageIdentity]) -> dict[str, str]:
    splits: list[SplitName] = ["train", *_roles(folder)]
    return {name: content_of((images[entry.path] for entry in folder.split(name)), upright=False) for name in splits}


def _signature(folder: TaskFolder, files: Mapping[str, stat_result]) -> str:
    digest = hashlib.sha256()
    for role in _roles(folder):
        for entry in folder.entries[role]:
            status = files[entry.path]
            times = f"{status.st_mtime_ns}\0{status.st_ctime_ns}\0{status.st_ino}"
            digest.update(f"\0{role}\0{entry.path}\0{entry.label}\0{status.st_size}\0{times}".encode())
    return digest.hexdigest()


def _is_fresh(files: Mapping[str, stat_result], started: int) -> bool:
    # A file rewritten within one tick of the file system's clock keeps its times, so the signature of a copy this
    # recent cannot be trusted.
    return max(_newest(files.values())) > started - _TICK_NS


def _newest(statuses: Iterable[stat_result]) -> Iterable[int]:
    return (max(status.st_mtime_ns, status.st_ctime_ns) for status in statuses)


def _recall(memo: Path) -> Identity | None:
    """Return the stored identity, or ``None`` if there is none or the file has changed since it was written."""
    try:
        digest, text = memo.read_text().split(" ", 1)
        return Identity(**json.loads(text)) if digest == _digest(text) else None
    except (OSError, ValueError, TypeError):
        return None


def _store(memo: Path, identity: Identity) -> None:
    text = json.dumps(asdict(identity))
    # A failed write (a full disk) only makes the next command hash again.
    with suppress(OSError), atomic_path(memo) as temporary:
        temporary.write_text(f"{_digest(text)} {text}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
