"""Verification of a task that lies at a location: a folder, a table, a data set of a hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from shipbench.counts import counted, named_few
from shipbench.data.inspection.checks import (
    ALL_LISTED,
    Checks,
    broken_images,
    converted_images,
    first_few,
    mixed_formats,
    repeated_images,
    report_on,
    shared_images,
    test_images_in_training,
    unusual_formats,
)
from shipbench.data.inspection.evidence import Evidence, ImageFacts
from shipbench.data.leaks import shared_paths
from shipbench.data.listings import DrawnSource, Listing
from shipbench.data.parallel import map_items
from shipbench.data.types import Entry, TaskReport


@dataclass(frozen=True)
class ListedEvidence(Evidence):
    """The facts of all images of a listing, split by what they are drawn for; ``remarks`` are notes of the source."""

    remarks: tuple[str, ...]
    listing: Listing

    training: ClassVar[tuple[str, ...]] = ("train", "val")

    def where(self, path: str) -> str:
        """Return the file of an image, or its name in the source and the file that holds it."""
        return self.listing.where(path)


def verify_listed(source: DrawnSource, jobs: int | None = None) -> TaskReport:
    """Decode every image of a source, also those that are not drawn, and return the report on them."""
    evidence = _gather(source, jobs)
    identity = source.describe({path: facts.identity for path, facts in evidence.images.items()})
    return report_on(
        evidence, _CHECKS, folder=source.folder, image_format=identity.image_format, fingerprint=identity.fingerprint
    )


def _gather(source: DrawnSource, jobs: int | None) -> ListedEvidence:
    splits = {str(role): entries for role, entries in source.drawing.pools.items() if entries}
    paths = list(dict.fromkeys(entry.path for entries in splits.values() for entry in entries))
    identities = source.identify(paths, jobs)

    def facts_of(path: str) -> ImageFacts:
        return ImageFacts.of(identities[path], lambda: source.listing.picture(path))

    facts = map_items(facts_of, paths, f"checking {source.task.name}", jobs)
    images = dict(zip(paths, facts, strict=True))
    return ListedEvidence(source.task, source.place, splits, images, source.notes, source.listing)


def images_in_two_classes(evidence: Evidence) -> list[str]:
    """Find images that are in two classes, byte for byte."""
    first: dict[str, Entry] = {}
    sentences = []
    names = evidence.task.class_names
    for entry in evidence.entries(*evidence.splits):
        other = first.setdefault(evidence.images[entry.path].identity.sha256, entry)
        if other.label != entry.label:
            two = f"{names[other.label]} ({other.path}) and {names[entry.label]} ({entry.path})"
            sentences.append(f"one image is in two classes, byte for byte: {two}")
    return first_few(sentences, ALL_LISTED)


def validation_images_listed_in_train(evidence: Evidence) -> list[str]:
    """Find validation images that the source lists in train as well."""
    paths = shared_paths(evidence.entries("val"), evidence.entries("train"))
    if not paths:
        return []
    images = counted(len(paths), "image")
    listed = f"{images} in {evidence.place} {'is' if len(paths) == 1 else 'are'} listed in train and in val"
    return [f"{listed} ({named_few(paths)}); list each image in one split"]


def validation_images_in_train(evidence: Evidence) -> list[str]:
    """Warn about validation images that are training images under another path, byte for byte."""
    shared = shared_images(evidence, "val", ("train",))
    for path in shared_paths(evidence.entries("val"), evidence.entries("train")):
        shared.pop(path, None)
    return first_few([f"val image {a} is also train image {b}, byte for byte" for a, b in shared.items()], ALL_LISTED)


def classes_without_validation(evidence: Evidence) -> list[str]:
    """Warn about classes that have no image in the validation or test split of the source."""
    sentences = []
    for role in ("val", "test"):
        present = {entry.label for entry in evidence.entries(role)}
        absent = [name for label, name in enumerate(evidence.task.class_names) if label not in present]
        if present and absent:
            sentences.append(f"no {role} image of {named_few(absent)}")
    return sentences


def remarks(evidence: ListedEvidence) -> list[str]:
    """Note what the source says of itself: files skipped, labels renumbered, test images held out."""
    return list(evidence.remarks)


_CHECKS: Checks[ListedEvidence] = Checks(
    problems=(
        broken_images,
        test_images_in_training,
        validation_images_listed_in_train,
        images_in_two_classes,
    ),
    warnings=(mixed_formats, validation_images_in_train, repeated_images, classes_without_validation),
    notes=(remarks, unusual_formats, converted_images),
)
