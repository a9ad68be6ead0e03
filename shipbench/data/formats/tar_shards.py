"""Shards of WebDataset: tar archives in which ``0001.jpg`` is an image and ``0001.cls`` its label."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from shipbench.counts import counted, named_few
from shipbench.data.formats.files import is_image, plain_path, visible_files
from shipbench.data.formats.labels import Label, as_integers, make_listing
from shipbench.data.formats.options import text_option
from shipbench.data.formats.roles import assign_roles, role_of, role_within
from shipbench.data.images import read_bytes
from shipbench.data.listings import Listing, SplitRole
from shipbench.errors import InputError, system_reason

# What the authors of such data sets call the list of their classes.
_NAMES = ("classnames.txt", "classes.txt")
# A label lies beside its image, so archives without one among their first members hold something else.
_PROBED = 1000
_LONGEST_LABEL = 1000


class _Place(NamedTuple):
    """Where an image lies in an archive: the first byte and the number of bytes."""

    start: int
    size: int


@dataclass(frozen=True)
class _Shard:
    """A shard: the places of its images by the name of the member, and the labels by the name without suffix."""

    file: Path
    images: Mapping[str, _Place]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class ShardImages:
    """Images in tar archives: the file and the place of each, by its path."""

    places: Mapping[str, tuple[Path, _Place]]

    def read(self, path: str) -> bytes:
        """Return an encoded image; raise ``InputError`` if the archive cannot be read."""
        file, (start, size) = self.places[path]
        try:
            with file.open("rb") as stream:
                stream.seek(start)
                return stream.read(size)
        except OSError as error:
            raise InputError(f"cannot read {file}: {system_reason(error)}") from error


def list_shards(root: Path, options: Mapping[str, Any]) -> Listing | None:
    """List the images of the shards at ``root``, a file or a folder; ``None`` if there are none with labels.

    The split is that of the folder of a shard, else of its name. The keys ``image_column`` and ``label_column`` are
    suffixes of members, the latter ``cls`` by default. Raises ``InputError`` if an archive is damaged, and if samples
    have several images of which the task file chooses none.
    """
    folder = root.parent if root.is_file() else root
    suffix = f".{(text_option(options, 'label_column') or 'cls').removeprefix('.')}"
    files = _archives(root, suffix)
    shards = _with_one_image([_shard(file, suffix) for file in files], options, root)
    splits: dict[str, list[_Shard]] = {}
    for shard in shards:
        splits.setdefault(_split(shard.file.relative_to(folder)), []).append(shard)
    labelled = {split: some for split, some in splits.items() if any(shard.labels for shard in some)}
    if not labelled:
        return None
    notes = [f"{split} in {root} has no labels and is left out" for split in splits if split not in labelled]
    roles, untrainable = assign_roles(labelled, options, root)
    if left_out := [split for split in labelled if split not in roles]:
        notes.append(f"left out {counted(len(left_out), 'split')} of {root}: {named_few(left_out)}")
    places: dict[str, tuple[Path, _Place]] = {}
    texts: dict[SplitRole, list[tuple[str, str]]] = {}
    for split, role in roles.items():
        pairs, unlabelled = _rows(splits[split], folder, places)
        texts.setdefault(role, []).extend(pairs)
        if unlabelled:
            notes.append(f"left out {counted(unlabelled, 'image')} of {split} in {root} without a label")
    integers = as_integers({text for pairs in texts.values() for _, text in pairs}) or {}
    rows = {role: [(path, integers.get(text, text)) for path, text in pairs] for role, pairs in texts.items()}
    signatures = {path: places[path][0] for split in rows.values() for path, _ in split}
    names = _class_names(folder, set(integers.values()))
    images = ShardImages(places)
    return make_listing(rows, images, root, names=names, notes=notes, signatures=signatures, untrainable=untrainable)


def _archives(root: Path, suffix: str) -> list[Path]:
    """Return the tar archives at ``root`` if one of them begins with labels, else none."""
    if root.is_file():
        return [root] if root.suffix == ".tar" else []
    below = list(visible_files(root))
    files = sorted(root / path for path in below if path.endswith(".tar"))
    has_images = any(map(is_image, below))
    return files if any(_begins_with_labels(file, suffix, may_be_damaged=has_images) for file in files) else []


def _begins_with_labels(file: Path, suffix: str, *, may_be_damaged: bool) -> bool:
    try:
        with _opened(file) as archive:
            return any(member.name.endswith(suffix) for member in islice(archive, _PROBED))
    except InputError:
        # What lies beside unpacked images may be the rest of a download.
        if may_be_damaged:
            return False
        raise


@contextmanager
def _opened(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(file, "r:") as archive:
            yield archive
    except (tarfile.TarError, EOFError, OSError, OverflowError, ValueError) as error:
        raise InputError(f"{file} cannot be read as a tar archive: {error}; get it again") from error


def _shard(file: Path, suffix: str) -> _Shard:
    images, labels = {}, {}
    with _opened(file) as archive:
        for member in archive:
            if not member.isfile():
                continue
            if is_image(member.name):
                images[member.name] = _place(file, member)
            elif member.name.endswith(suffix):
                labels[_divided(member.name)[0]] = _label(file, archive, member)
    return _Shard(file, images, labels)


def _place(file: Path, member: tarfile.TarInfo) -> _Place:
    if member.issparse():
        raise InputError(f"{file}: {member.name} is stored with gaps; pack the archive without --sparse")
    return _Place(member.offset_data, member.size)


def _label(file: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    stream = archive.extractfile(member)
    try:
        if stream and member.size <= _LONGEST_LABEL:
            return stream.read().decode().strip()
        fault = None
    except UnicodeDecodeError as error:
        fault = error
    raise InputError(f"{file}: {member.name} holds no class but {counted(member.size, 'byte')}; correct it") from fault


def _divided(name: str) -> tuple[str, str]:
    """Return the key of a member's sample and the suffix, which begins at the first point of the file's name."""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def _with_one_image(shards: Sequence[_Shard], options: Mapping[str, Any], root: Path) -> list[_Shard]:
    """Return the shards with the images of the suffix that the task file chooses, else all, one for each sample."""
    suffixes = sorted({_divided(name)[1] for shard in shards for name in shard.images})
    chosen = (text_option(options, "image_column") or "").removeprefix(".").lower()
    if suffixes and not chosen and any(_has_several(shard.images) for shard in shards):
        raise InputError(
            f"{root} has several images for one label ({named_few(suffixes)}); choose in the task file: "
            f'image_column = "{suffixes[0]}"'
        )
    if suffixes and chosen and chosen not in suffixes:
        raise InputError(f"{root} has no images {chosen!r} (image_column); it has {named_few(suffixes, 20)}")
    kept = suffixes if not chosen else [chosen]
    return [
        replace(shard, images={name: place for name, place in shard.images.items() if _divided(name)[1] in kept})
        for shard in shards
    ]


def _has_several(images: Mapping[str, _Place]) -> bool:
    return len({_divided(name)[0] for name in images}) < len(images)


def _split(file: Path) -> str:
    """Return the split of a shard by its path from the named folder on."""
    return next(filter(role_of, reversed(file.parts[:-1])), None) or role_within(file.stem) or "train"


def _rows(
    shards: Sequence[_Shard], folder: Path, places: dict[str, tuple[Path, _Place]]
) -> tuple[list[tuple[str, str]], int]:
    """Return path and label of the labelled images of a split, and the number of the others; complete ``places``."""
    labelled, unlabelled = [], 0
    for shard in shards:
        for name, place in shard.images.items():
            label = shard.labels.get(_divided(name)[0])
            if not label:
                unlabelled += 1
                continue
            path = f"{shard.file.relative_to(folder).as_posix()}/{plain_path(name)}"
            places[path] = (shard.file, place)
            labelled.append((path, label))
    return labelled, unlabelled


def _class_names(folder: Path, labels: set[int]) -> dict[Label, str] | None:
    """Return the names in the list of classes beside the shards by label, if it has one for every label."""
    file = next((folder / name for name in _NAMES if (folder / name).is_file()), None)
    names = read_bytes(file).decode("utf-8-sig", "replace").split("\n") if file else []
    known: dict[Label, str] = {number: name.strip() for number, name in enumerate(names) if name.strip()}
    return known if labels and labels <= known.keys() else None
