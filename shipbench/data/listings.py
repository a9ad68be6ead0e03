"""Sources whose tasks are given by a location: every image listed with its class, none of them read.

A new format is one subclass of ``ListedSource`` and one line in the entry-point group ``shipbench.sources``, whose name
is the prefix of its locations: ``folder`` in ``folder:/data/bugs``. Drawing, holding out test images, fingerprints and
verification are the same for all formats and implemented once, in ``ListedSource``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from PIL import Image

from shipbench.counts import counted, named_few
from shipbench.data.drawing import Drawing, draw
from shipbench.data.identities import content_of, identify_contained, identify_files
from shipbench.data.images import (
    ImageIdentity,
    decode_photograph,
    identify_bytes,
    identify_picture,
    image_format,
    to_rgb,
)
from shipbench.data.leaks import refuse_contradictions, refuse_leaks, refuse_shared_paths
from shipbench.data.parallel import map_items
from shipbench.data.types import Entry, Identity, NativeSplit, SplitRole
from shipbench.errors import InputError
from shipbench.runtime.files import expanded
from shipbench.tasks import Task
from shipbench.tasks.catalogue import SplitName

__all__ = ["Containers", "DrawnSource", "Images", "ListedSource", "Listing", "SplitRole"]


class Images(Protocol):
    """Reads the images of a listing; called from several threads at once."""

    def read(self, path: str) -> bytes | Image.Image:
        """Return the image called ``path`` in the listing: the encoded file, or a decoded Pillow image.

        Raises ``InputError`` for an image that cannot be read.
        """


@dataclass(frozen=True)
class Containers:
    """The files that hold the images of a source together.

    ``reader`` is what else decides the images: the arguments and the release of the package that decodes them.
    """

    files: tuple[str, ...]
    reader: str


@dataclass(frozen=True)
class Listing:
    """All images of a source, listed but not read.

    ``classes`` are the names of the classes in the order of their numbers. ``splits`` holds only the splits that the
    source itself has, each in an order that depends on its content alone; ``Entry.path`` is unique to an image and does
    not depend on where the source lies. ``notes`` are sentences for the user: files skipped, labels renumbered, modes
    converted. ``signatures`` maps each path to the file that holds the image (the image itself, or a container with
    many); as long as the sizes and times of these files stay the same, the images are not hashed again. It is None if
    the images do not come from files, and if no file can be named for each: ``containers`` then has all of them.
    ``column`` names the column of these files that holds the images, if they are tables, which may have images in
    several. ``doubt`` is why the labels look like no classes: the error for a task that does not name its classes.
    ``untrainable`` is why nothing can be trained on the images, for example that none is in train: the error for a
    task that is not only evaluated on.
    """

    classes: tuple[str, ...]
    splits: Mapping[SplitRole, tuple[Entry, ...]]
    images: Images
    notes: tuple[str, ...] = ()
    signatures: Mapping[str, Path] | None = None
    column: str = ""
    doubt: str = ""
    untrainable: str = ""
    containers: Containers | None = None

    def picture(self, path: str) -> Image.Image:
        """Return the image called ``path`` as RGB, an encoded one upright.

        Raises ``InputError`` if it cannot be read or decoded.
        """
        image, where = self.images.read(path), self.where(path)
        if isinstance(image, bytes):
            return decode_photograph(image, where)
        try:
            return to_rgb(image)
        except ValueError as error:
            raise InputError(f"{where} cannot be used: {error}") from error

    def where(self, path: str) -> str:
        """Return the file of the image called ``path``, or the name and the file that holds it beside others."""
        file = None if self.signatures is None else self.signatures[path]
        # A file that holds many images does not tell which of them is meant.
        return path if file is None else str(file) if file.as_posix().endswith(path) else f"{path} in {file}"


class ListedSource(ABC):
    """A kind of source whose tasks are given by a location; a format implements ``list`` and nothing else.

    ``option_names`` are the keys of a task file that the format reads itself, such as ``label_column``. A format that
    leaves them at None is handed every unknown key, and has to refuse those that it does not know.
    """

    option_names: ClassVar[tuple[str, ...] | None] = None

    @abstractmethod
    def list(self, location: str, base: Path, options: Mapping[str, Any]) -> Listing:
        """List all images at a location.

        A relative ``location`` starts from the folder ``base``: that of the task file, or the working directory.
        ``options`` are the keys of the task file that shipbench does not read itself. Raises ``InputError`` if the
        location cannot be read as this format.
        """

    def listing(self, task: Task, root: Path | None) -> Listing:
        """List the images of a task; a suite of the catalogue that lies in ``root`` overrides this."""
        return self.list(task.location, Path(task.base), json.loads(task.options))

    def open(self, task: Task, root: Path | None, splits: tuple[SplitName, ...]) -> DrawnSource:
        """List the images of a task and draw its splits, reading no image.

        Raises ``InputError`` as ``list`` and ``draw`` do, for images that cannot be trained on, for an image with two
        classes, and for ``classes`` in the task file that do not fit those of the source.
        """
        listing = self.listing(task, root)
        if listing.untrainable:
            raise InputError(listing.untrainable)
        listing = numbered(task, listing)
        _require_one_class(task, listing)
        drawing = draw(task, listing.splits, listing.classes)
        return DrawnSource(_completed(task, listing, drawing), listing, drawing, splits, root)


@dataclass(frozen=True)
class DrawnSource:
    """The requested splits of a task that were drawn from a listing; ``task`` has its sizes and class names.

    ``root`` is the folder given by ``--data``, if any.
    """

    task: Task
    listing: Listing
    drawing: Drawing
    requested: tuple[SplitName, ...]
    root: Path | None = None

    @property
    def counts(self) -> Mapping[SplitName, int]:
        """Number of images of each requested split."""
        return {name: len(self.drawing.splits[name]) for name in self.requested}

    @property
    def folder(self) -> Path | None:
        """The folder that the source reads, or the one that holds its images; None if they lie in no folder."""
        path = Path(self.task.base) / expanded(self.task.location)
        if path.is_dir():
            return path
        files = {file.absolute() for file in (self.listing.signatures or {}).values()}
        # Several images in one file have no folder.
        lie_apart = files and len(files) == len(self.listing.signatures or {})
        return Path(os.path.commonpath([file.parent for file in files])) if lie_apart else None

    @property
    def place(self) -> str:
        """The source as the user names it."""
        return self.task.name if self.task.catalogued else f"{self.task.source}:{self.task.location}"

    @property
    def warning(self) -> str:
        """What the user should know of the listing and of held-out test images, in one line."""
        return "; ".join(f"{self.task.name}: {note}" for note in self.notes)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of the listing, and those on held-out test images."""
        if not self.drawing.held_out:
            return self.listing.notes
        held_out = self.drawing.pools["test"]
        note = (
            f"the source has no test images, so a fifth of each class is held out ({counted(len(held_out), 'image')})"
        )
        tested = {entry.label for entry in held_out}
        untested = [name for label, name in enumerate(self.listing.classes) if label not in tested]
        return (*self.listing.notes, note, *_note_on_untested(untested))

    def identity(self, jobs: int | None = None) -> Identity:
        """Return the identity of all images and labels of the source; without test, none of its images is read.

        Raises ``InputError`` if an image is in train and test or in two classes, or if two splits list it, unless the
        task is catalogued or allows leaks.
        """
        pooled = [entry for role in self._roles for entry in self.drawing.pools[role]]
        strict = not (self.task.allow_leaks or self.task.catalogued)
        if strict:
            refuse_shared_paths(self.task, self.listing.splits, self._how_to_keep_or_list)
        images = self.identify([entry.path for entry in pooled], jobs)
        if strict:
            self._refuse_leaks(images)
            refuse_contradictions(self.task, pooled, self.listing.classes, images, self._how_to_keep_or_list)
        return self.describe(images)

    def describe(self, images: Mapping[str, ImageIdentity]) -> Identity:
        """Return the identity of the source from those of its images by path."""
        return Identity(
            self._fingerprint(images),
            image_format(image.kind for image in images.values()),
            {
                name: content_of((images[entry.path] for entry in self._entries(name)), upright=True)
                for name in self.requested
            },
        )

    @property
    def _roles(self) -> tuple[SplitRole, ...]:
        """The roles whose images the source may open."""
        return ("train", "val", "test") if "test" in self.requested else ("train", "val")

    def identify(self, paths: Sequence[str], jobs: int | None = None) -> dict[str, ImageIdentity]:
        """Return the identities of images by path; hash only those of new and changed files."""
        paths, signatures = list(dict.fromkeys(paths)), self.listing.signatures
        if signatures is None:
            return self._identify_apart(paths, jobs)
        files = {path: str(signatures[path].absolute()) for path in paths}
        if len(set(files.values())) < len(paths):
            # With the file of each path: tables call their images by split and row alone.
            reader = [list(files.items()), self.listing.column]
            read_one, title = self._read_identity, self.task.name
            return identify_contained(paths, files.values(), read_one, title, jobs, reader=reader)
        root = Path(os.path.commonpath(files.values()))
        identities = identify_files(root, list(files.values()), self.task.name, jobs)
        return {path: identities[file] for path, file in files.items()}

    def _identify_apart(self, paths: Sequence[str], jobs: int | None) -> dict[str, ImageIdentity]:
        """Return the identities of images whose files are not known one by one, if at all."""
        containers, read_one, title = self.listing.containers, self._read_identity, self.task.name
        if containers is None:
            return dict(zip(paths, map_items(read_one, paths, f"fingerprinting {title}", jobs), strict=True))
        return identify_contained(paths, containers.files, read_one, title, jobs, reader=containers.reader)

    def _read_identity(self, path: str) -> ImageIdentity:
        image = self.listing.images.read(path)
        return identify_bytes(image) if isinstance(image, bytes) else identify_picture(image)

    def open_split(self, name: SplitName) -> NativeSplit:
        """Return a split whose images are decoded on access, upright as their EXIF orientation says."""
        entries = self._entries(name)
        labels = np.array([entry.label for entry in entries], dtype=np.int64)
        return NativeSplit(labels, lambda index: self.listing.picture(entries[index].path))

    def _entries(self, name: SplitName) -> tuple[Entry, ...]:
        return self.drawing.splits[name]

    def _fingerprint(self, images: Mapping[str, ImageIdentity]) -> str:
        """Return the SHA-256 of the class names and of one line per image: role, path, label and hash."""
        digest = hashlib.sha256("\0".join(self.listing.classes).encode(errors="surrogateescape"))
        for role in self._roles:
            for entry in self.drawing.pools[role]:
                line = f"\n{role}\0{entry.path}\0{entry.label}\0{images[entry.path].sha256}"
                digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _refuse_leaks(self, images: Mapping[str, ImageIdentity]) -> None:
        if "test" in self.requested:
            # With shots, train lacks the images that a tuning scores; settings must not be chosen on test.
            seen = (*self._entries("train800"), *self._entries("val200"))
            refuse_leaks(self.task, seen, self._entries("test"), images, self._how_to_keep_or_list)

    @property
    def _how_to_keep_or_list(self) -> str:
        """How to keep images that are in two splits or classes, and the command that lists all of them."""
        file, place = ("the task file", self.task.file) if self.task.file else ("a task file", self.place)
        data = "" if self.root is None else f" --data {shlex.quote(str(self.root))}"
        command = f"shipbench data verify {shlex.quote(place)}{data} --list FILE.csv"
        return f"or write allow_leaks = true in {file}; list them with: {command}"


def numbered(task: Task, listing: Listing) -> Listing:
    """Return the listing with the classes that the task asks for: the same names in another order, or new names.

    Raises ``InputError`` for classes that do not fit those of the source, and for labels that look like no classes
    unless the task names them.
    """
    names = listing.classes
    spelled = {unicodedata.normalize("NFC", name): name for name in names}
    # The task file may write an accented letter as one character or two.
    wanted = tuple(spelled.get(unicodedata.normalize("NFC", name), name) for name in task.class_names)
    if listing.doubt and not wanted:
        raise InputError(listing.doubt)
    if not wanted or wanted == names:
        return listing
    if len(wanted) != len(names):
        classes = counted(len(wanted), "class", "classes")
        raise InputError(f"task {task.name} names {classes}, but its source has {len(names)}: {named_few(names, 5)}")
    if set(wanted) != set(names):
        if set(wanted) & set(names):
            stray = next(name for name in wanted if name not in names)
            raise InputError(
                f"class {stray!r} of task {task.name} is not in its source, which has {named_few(names, 5)}"
            )
        return replace(listing, classes=wanted, notes=(*listing.notes, *_note_on_order(names, wanted)))
    numbers = {name: number for number, name in enumerate(wanted)}
    number_of = [numbers[name] for name in names]
    splits = {
        role: tuple(Entry(entry.path, number_of[entry.label]) for entry in entries)
        for role, entries in listing.splits.items()
    }
    return replace(listing, classes=wanted, splits=splits)


def _completed(task: Task, listing: Listing, drawing: Drawing) -> Task:
    return replace(
        task,
        num_classes=len(listing.classes),
        n_train=len(drawing.splits["train"]),
        n_test=len(drawing.splits["test"]),
        class_names=listing.classes,
        drawn=drawing.summary(),
    )


def _require_one_class(task: Task, listing: Listing) -> None:
    labels: dict[str, int] = {}
    for entry in (entry for entries in listing.splits.values() for entry in entries):
        label = labels.setdefault(entry.path, entry.label)
        if label != entry.label:
            names = listing.classes
            raise InputError(
                f"one image of task {task.name} is in two classes: {entry.path} is {names[label]} and "
                f"{names[entry.label]}; give each image one class"
            )


def _note_on_untested(names: Sequence[str]) -> list[str]:
    have = "has" if len(names) == 1 else "have"
    classes = counted(len(names), "class", "classes")
    return [f"{classes} of one image {have} none to test on: {named_few(names, 5)}"] if names else []


def _note_on_order(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return a note if the old names are sorted as text, so that the class after 1 may be 10."""
    if list(names) != sorted(names):
        return []
    pairs = zip(names, sorted(names, key=_with_numbers), wanted, strict=True)
    first = next(((old, new) for old, by_number, new in pairs if old != by_number), None)
    order = f"classes names the classes in the order of text ({named_few(names, 5)})"
    return [f"{order}, so {first[0]} is called {first[1]!r}"] if first else []


def _with_numbers(name: str) -> list[str | int]:
    """Return the parts of a name, for sorting: texts at even places, whole numbers between them."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", name))]
