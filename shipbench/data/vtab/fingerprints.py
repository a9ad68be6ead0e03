"""The fingerprint of a VTAB-1k task: a hash over every image and label, independent of where the folder is.

Hashing a real copy reads gigabytes, so the result is stored under a signature of what a directory listing gives: path,
label, size, times and inode of every listed file. A changed file changes the signature.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict
from os import stat_result
from pathlib import Path

from shipbench.data.identities import TICK_NS, content_of, read_memo, write_memo
from shipbench.data.images import ImageIdentity, ImageKind, identify_bytes, image_format, read_bytes
from shipbench.data.parallel import map_items
from shipbench.data.scanning import scan_images
from shipbench.data.types import Identity
from shipbench.data.vtab.folder import ROLES, Role, TaskFolder
from shipbench.errors import InputError
from shipbench.runtime.cache import cache_dir
from shipbench.tasks.catalogue import SplitName


def identify(folder: TaskFolder, jobs: int | None = None) -> Identity:
    """Return the identity of a task: the stored one if no file has changed, else hashed in parallel.

    Raises ``InputError`` if a listed image is missing or cannot be read.
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
    newest = max(max(status.st_mtime_ns, status.st_ctime_ns) for status in scan.files.values())
    if newest <= started - TICK_NS:
        write_memo(memo, asdict(identity))
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


def _recall(memo: Path) -> Identity | None:
    try:
        return Identity(**read_memo(memo))
    except TypeError:
        return None
