"""Shards of WebDataset: tar archives in which ``0001.jpg`` is an image and ``0001.cls`` its label."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipbench.counts import counted
from shipbench.data.formats.files import is_hidden, is_image, plain_path
from shipbench.data.formats.labels import Label, as_integers, make_listing, quoted_few
from shipbench.data.formats.roles import assign_roles, role_of, role_within
from shipbench.data.images import read_bytes
from shipbench.data.listings import Listing, SplitRole
from shipbench.errors import InputError, system_reason

_LABEL = ".cls"
# What the authors of such data sets call the list of their classes.
_NAMES = ("classnames.txt", "classes.txt")


@dataclass(frozen=True)
class _Shard:
    """A shard: the places of its images by the name of the member, and the labels by the name without suffix."""

    file: Path
    images: Mapping[str, tuple[int, int]]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class ShardImages:
    """Images in tar archives: the file, the first byte and the number of bytes of each, by its path."""

    places: Mapping[str, tuple[Path, int, int]]

    def read(self, path: str) -> bytes:
        """Return an encoded image; raise ``InputError`` if the archive cannot be read."""
        file, start, size = self.places[path]
        try:
            with file.open("rb") as stream:
                stream.seek(start)
                return stream.read(size)
        except OSError as error:
            raise InputError(f"cannot read {file}: {system_reason(error)}") from error


def list_shards(root: Path, options: Mapping[str, Any]) -> Listing | None:
    """List the images of the shards at ``root``, a file or a folder; ``None`` if there are none with labels.

    The split is that of the folder of a shard, else of its name. Raises ``InputError`` if an archive is damaged.
    """
    folder = root.parent if root.is_file() else root
    files = [root] if root.suffix == ".tar" else sorted(root.rglob("*.tar")) if root.is_dir() else []
    shards = [_shard(file) for file in files if not any(map(is_hidden, file.relative_to(folder).parts))]
    if not any(shard.labels for shard in shards):
        return None
    splits: dict[str, list[_Shard]] = {}
    for shard in shards:
        splits.setdefault(_split(shard.file), []).append(shard)
    roles = assign_roles(splits, options, root)
    notes = []
    if left_out := [split for split in splits if split not in roles]:
        notes.append(f"left out {counted(len(left_out), 'split')} of {root}: {quoted_few(left_out)}")
    integers = as_integers({text for split in roles for shard in splits[split] for text in shard.labels.values()}) or {}
    places: dict[str, tuple[Path, int, int]] = {}
    rows: dict[SplitRole, list[tuple[str, Label]]] = {}
    for split, role in roles.items():
        labelled, unlabelled = _rows(splits[split], folder, places)
        rows.setdefault(role, []).extend((path, integers.get(text, text)) for path, text in labelled)
        if unlabelled:
            notes.append(f"left out {counted(unlabelled, 'image')} of {split} in {root} without a label")
    images = ShardImages(places)
    signatures = {path: places[path][0] for split in rows.values() for path, _ in split}
    names = _class_names(folder, set(integers.values()))
    return make_listing(rows, images, root, names=names, notes=notes, signatures=signatures)


def _shard(file: Path) -> _Shard:
    images, labels = {}, {}
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if is_image(member.name):
                    images[member.name] = (member.offset_data, member.size)
                elif member.name.endswith(_LABEL) and (content := archive.extractfile(member)):
                    labels[_key(member.name)] = content.read().decode("utf-8", "replace").strip()
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{file} cannot be read as a tar archive: {error}; get it again") from error
    return _Shard(file, images, labels)


def _key(name: str) -> str:
    """Return the name of a member up to the first point of its file's name."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _split(file: Path) -> str:
    if role_of(file.parent.name):
        return file.parent.name
    return role_within(file.stem) or "train"


def _rows(
    shards: Sequence[_Shard], folder: Path, places: dict[str, tuple[Path, int, int]]
) -> tuple[list[tuple[str, str]], int]:
    """Return path and label of the labelled images of a split, and the number of the others; complete ``places``."""
    labelled, unlabelled = [], 0
    for shard in shards:
        for name, place in shard.images.items():
            label = shard.labels.get(_key(name))
            if not label:
                unlabelled += 1
                continue
            path = f"{shard.file.relative_to(folder).as_posix()}/{plain_path(name)}"
            places[path] = (shard.file, *place)
            labelled.append((path, label))
    return labelled, unlabelled


def _class_names(folder: Path, labels: set[int]) -> dict[Label, str] | None:
    """Return the names in the list of classes beside the shards by label, if it has one for every label."""
    file = next((folder / name for name in _NAMES if (folder / name).is_file()), None)
    names = read_bytes(file).decode("utf-8-sig", "replace").split("\n") if file else []
    known: dict[Label, str] = {number: name.strip() for number, name in enumerate(names) if name.strip()}
    return known if labels and labels <= known.keys() else None
