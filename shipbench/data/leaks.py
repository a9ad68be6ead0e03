"""Refusals of images that two splits or two classes of a source share.

``advice`` ends the sentence of each error: how to keep such images, and the command that lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from shipbench.counts import counted, named_few
from shipbench.data.images import ImageIdentity
from shipbench.data.types import Entry, SplitRole
from shipbench.errors import InputError
from shipbench.tasks import Task


def shared_paths(first: Iterable[Entry], second: Iterable[Entry]) -> list[str]:
    """Return the paths that two splits share, each once, in the order of the first."""
    others = {entry.path for entry in second}
    return [path for path in dict.fromkeys(entry.path for entry in first) if path in others]


def refuse_shared_paths(task: Task, splits: Mapping[SplitRole, Sequence[Entry]], advice: str) -> None:
    """Raise ``InputError`` if two splits of the source list the same image."""
    for first, second in combinations(splits, 2):
        if paths := shared_paths(splits[first], splits[second]):
            images = f"{counted(len(paths), 'image')} of task {task.name}"
            raise InputError(
                f"{images} {'is' if len(paths) == 1 else 'are'} listed in {first} and in {second} "
                f"({named_few(paths)}); list each image in one split, {advice}"
            )


def refuse_leaks(
    task: Task, training: Iterable[Entry], test: Iterable[Entry], images: Mapping[str, ImageIdentity], advice: str
) -> None:
    """Raise ``InputError`` if a test image is a training image, byte for byte."""
    path_of = {images[entry.path].sha256: entry.path for entry in training}
    hashes = [(entry.path, images[entry.path].sha256) for entry in test]
    shared = [(path, path_of[sha256]) for path, sha256 in hashes if sha256 in path_of]
    if shared:
        verb = "is also a training image" if len(shared) == 1 else "are also training images"
        raise InputError(
            f"{counted(len(shared), 'test image')} of task {task.name} {verb}, byte for byte (for example, "
            f"{shared[0][0]} is {shared[0][1]}); remove them, {advice}"
        )


def refuse_contradictions(
    task: Task, entries: Iterable[Entry], classes: Sequence[str], images: Mapping[str, ImageIdentity], advice: str
) -> None:
    """Raise ``InputError`` if an image is in two classes, byte for byte."""
    first: dict[str, Entry] = {}
    for entry in entries:
        other = first.setdefault(images[entry.path].sha256, entry)
        if other.label != entry.label:
            raise InputError(
                f"one image of task {task.name} is in two classes: {other.path} is {classes[other.label]}, "
                f"{entry.path} is {classes[entry.label]}, byte for byte; remove one, {advice}"
            )
