"""What identifies a copy of a task: a hash over every image and label, wherever the folder lies.

Hashing a real copy reads gigabytes, so the result is remembered under a signature of cheap facts: path, label, size,
times and inode of every file that the split files name. A file that changes, changes the signature.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from os import stat_result
from pathlib import Path

from shipbench.data.images import ImageKind, image_format, sniff
from shipbench.data.parallel import stream
from shipbench.data.types import ImageFormat
from shipbench.data.vtab.folder import ROLES, Role, TaskSource, scan_images
from shipbench.data.vtab.split_files import read_bytes
from shipbench.errors import InputError
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.files import atomic_path

_TICK_NS = 100_000_000


@dataclass(frozen=True)
class Identity:
    """A copy's fingerprint (SHA-256, hex) and how its images are stored."""

    fingerprint: str
    image_format: ImageFormat


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """SHA-256 (hex) of an image file's bytes, and the kind of file."""

    sha256: str
    kind: ImageKind


def identify(source: TaskSource, jobs: int | None = None) -> Identity:
    """Return a copy's identity: remembered if no file has changed, else hashed in parallel.

    Raises ``InputError`` if an image that a split file names is missing, unreadable or outside the task folder.
    """
    paths = [entry.path for role in _roles(source) for entry in source.roles[role]]
    scan = scan_images(source.folder, paths)
    if scan.faults:
        raise InputError(scan.faults[0])
    memo = cache_dir("fingerprints") / f"{source.task.name}-{_signature(source, scan.found)}.json"
    known = _recall(memo)
    if known is not None:
        return known
    started = time.time_ns()
    identity = identity_of(source, _hash_files(source, paths, jobs))
    if not _changed_just_now(scan.found, started):
        _remember(memo, identity)
    return identity


def identity_of(source: TaskSource, files: Mapping[str, FileIdentity]) -> Identity:
    """Combine the hashes of a copy's files, by path, into its identity.

    The fingerprint is the SHA-256 of one record per entry of train800, val200 and test, in file order: role, path,
    label and image hash, separated by NUL and ended by a line feed. A source without its test split has the
    fingerprint of the other two.
    """
    digest = hashlib.sha256()
    kinds: set[ImageKind] = set()
    for role in _roles(source):
        for entry in source.roles[role]:
            file = files[entry.path]
            digest.update(f"{role}\0{entry.path}\0{entry.label}\0{file.sha256}\n".encode())
            kinds.add(file.kind)
    return Identity(digest.hexdigest(), image_format(kinds))


def identify_bytes(data: bytes) -> FileIdentity:
    """Return the identity of an image file's bytes."""
    return FileIdentity(hashlib.sha256(data).hexdigest(), sniff(data))


def _roles(source: TaskSource) -> list[Role]:
    return [role for role in ROLES if role in source.roles]


def _hash_files(source: TaskSource, paths: list[str], jobs: int | None) -> dict[str, FileIdentity]:
    def work(start: int, stop: int) -> list[FileIdentity]:
        return [identify_bytes(read_bytes(source.folder / path)) for path in paths[start:stop]]

    hashed = stream(work, len(paths), f"fingerprinting {source.task.name}", jobs)
    return dict(zip(paths, hashed, strict=True))


def _signature(source: TaskSource, found: Mapping[str, stat_result]) -> str:
    digest = hashlib.sha256()
    for role in _roles(source):
        for entry in source.roles[role]:
            facts = found[entry.path]
            times = f"{facts.st_mtime_ns}\0{facts.st_ctime_ns}\0{facts.st_ino}"
            digest.update(f"\0{role}\0{entry.path}\0{entry.label}\0{facts.st_size}\0{times}".encode())
    return digest.hexdigest()


def _changed_just_now(found: Mapping[str, stat_result], started: int) -> bool:
    # A file written again within one tick of the file system's clock keeps its times, so a copy that is that fresh is
    # hashed again next time.
    return max(_newest(found.values())) > started - _TICK_NS


def _newest(facts: Iterable[stat_result]) -> Iterable[int]:
    return (max(fact.st_mtime_ns, fact.st_ctime_ns) for fact in facts)


def _recall(memo: Path) -> Identity | None:
    """Return what was remembered; ``None`` if that is nothing, or has changed since it was written."""
    try:
        digest, text = memo.read_text().split(" ", 1)
        return Identity(**json.loads(text)) if digest == _digest(text) else None
    except (OSError, ValueError, TypeError):
        return None


def _remember(memo: Path, identity: Identity) -> None:
    text = json.dumps(asdict(identity))
    with atomic_path(memo) as temporary:
        temporary.write_text(f"{_digest(text)} {text}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
