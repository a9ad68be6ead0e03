"""Checks that fit every source; a check is a function from evidence to sentences.

Problems make results wrong or impossible, warnings shift them, notes leave them unchanged. Each source selects the
checks that apply to it and adds its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from shipbench.data.conversions import conversion_notes
from shipbench.data.images import LOSSY
from shipbench.data.inspection.evidence import Evidence
from shipbench.data.inspection.findings import findings
from shipbench.data.types import Entry, ImageFormat, TaskReport

AnyEvidence = TypeVar("AnyEvidence", bound=Evidence)

ALL_LISTED = "--list FILE.csv names all"
"""Where to find the images that a sentence leaves out."""

_LISTED = 3


@dataclass(frozen=True)
class Checks(Generic[AnyEvidence]):
    """The checks of a source, by severity."""

    problems: tuple[Callable[[AnyEvidence], list[str]], ...]
    warnings: tuple[Callable[[AnyEvidence], list[str]], ...]
    notes: tuple[Callable[[AnyEvidence], list[str]], ...]


def report_on(
    evidence: AnyEvidence,
    checks: Checks[AnyEvidence],
    *,
    folder: Path | None,
    image_format: ImageFormat | None,
    fingerprint: str | None,
) -> TaskReport:
    """Run all checks and return the report on a task."""
    sizes = sorted({facts.size for facts in evidence.images.values() if facts.size}, key=lambda size: size[0] * size[1])
    return TaskReport(
        task=evidence.task.name,
        folder=folder,
        problems=_run(checks.problems, evidence),
        warnings=_run(checks.warnings, evidence),
        notes=_run(checks.notes, evidence),
        counts={name: len(entries) for name, entries in evidence.splits.items()},
        image_format=image_format if sizes else None,
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        classes_seen=_classes_seen(evidence),
        fingerprint=fingerprint,
        findings=tuple(findings(evidence)),
    )


def broken_images(evidence: Evidence) -> list[str]:
    """Find images that cannot be decoded: truncated, damaged, too large, or not images at all."""
    return first_few([facts.fault for facts in evidence.images.values() if facts.fault], ALL_LISTED)


def test_images_in_training(evidence: Evidence) -> list[str]:
    """Find test images that are also training images, byte for byte."""
    shared = shared_with_test(evidence)
    known = evidence.task.catalogued
    advice = "get another copy or report their share with the results" if known else "remove one of each"
    return [f"{shared}; they inflate the test accuracy, so {advice}"] if shared else []


def mixed_formats(evidence: Evidence) -> list[str]:
    """Warn if some images are lossy and others are not."""
    kinds = {facts.identity.kind for facts in evidence.images.values()}
    mixed = LOSSY & kinds and kinds - LOSSY
    return [f"lossy and lossless images are mixed: {', '.join(sorted(kinds))}"] if mixed else []


def validation_images_in_train800(evidence: Evidence) -> list[str]:
    """Warn about validation images that are also in train800, byte for byte."""
    shared = shared_images(evidence, "val200", ("train800",))
    sentences = (f"val200 image {a} is also train800 image {b}, byte for byte" for a, b in shared.items())
    return first_few(sentences, ALL_LISTED)


def repeated_images(evidence: Evidence) -> list[str]:
    """Warn about images that occur more than once in train, val or test, byte for byte, under several paths."""
    repeats = {name: _repeats(evidence, name) for name in (*evidence.training, "test")}
    return [_describe_repeats(evidence, name, pairs) for name, pairs in repeats.items() if pairs]


def unusual_formats(evidence: Evidence) -> list[str]:
    """Note image files that are neither JPEG nor PNG, and the format under which records list them."""
    kinds = {facts.identity.kind for facts in evidence.images.values() if not facts.fault} - {"jpeg", "png", "array"}
    return [f"{kind} images are recorded as {'jpeg' if kind in LOSSY else 'png'}" for kind in sorted(kinds)]


def converted_images(evidence: Evidence) -> list[str]:
    """Note images that are not stored as RGB, and whether they have transparency, which is dropped."""
    return conversion_notes(facts.conversion for facts in evidence.images.values())


def unseen_classes(evidence: Evidence) -> list[str]:
    """Note classes without a training image."""
    unseen = evidence.task.num_classes - _classes_seen(evidence)
    verb = "has" if unseen == 1 else "have"
    return [f"{unseen} of {evidence.task.num_classes} classes {verb} no training image"] if unseen else []


def first_few(sentences: Iterable[str], others: str = "") -> list[str]:
    """Return the first three sentences, and one that counts the rest and says where the ``others`` are."""
    listed = list(sentences)
    more = f"... and {len(listed) - _LISTED} more of the same kind{others and f'; {others}'}"
    return listed if len(listed) <= _LISTED else [*listed[:_LISTED], more]


def _example(number: int, image: str, other: str) -> str:
    return f"(for example, {image} is {other}{f'; {ALL_LISTED}' if number > 1 else ''})"


def shared_with_test(evidence: Evidence) -> str:
    """Return a clause that counts the test images in other splits and gives an example; empty if there are none."""
    shared = shared_images(evidence, "test", tuple(name for name in evidence.splits if name != "test"))
    if not shared:
        return ""
    total, (test_image, training_image) = len(evidence.entries("test")), next(iter(shared.items()))
    return (
        f"{len(shared)} of {total} test images ({len(shared) / total:.2%}) in {evidence.place} are also training "
        f"images, byte for byte {_example(len(shared), test_image, training_image)}"
    )


def shared_images(evidence: Evidence, name: str, others: tuple[str, ...]) -> dict[str, str]:
    """Return the images of one split that are also in ``others``: path to the first equal path there."""
    hashes = {path: facts.identity.sha256 for path, facts in evidence.images.items()}
    path_of = {hashes[entry.path]: entry.path for entry in reversed(evidence.entries(*others)) if entry.path in hashes}
    shared = [entry.path for entry in evidence.entries(name) if hashes.get(entry.path) in path_of]
    return {path: path_of[hashes[path]] for path in shared}


def _repeats(evidence: Evidence, name: str) -> list[tuple[Entry, Entry]]:
    """Return pairs of an entry and the earlier entry of the split with another path and the same bytes."""
    first: dict[str, Entry] = {}
    pairs: list[tuple[Entry, Entry]] = []
    for entry in {entry.path: entry for entry in evidence.entries(name)}.values():
        if entry.path in evidence.images:
            earlier = first.setdefault(evidence.images[entry.path].identity.sha256, entry)
            pairs += [(entry, earlier)] if earlier is not entry else []
    return pairs


def _describe_repeats(evidence: Evidence, name: str, pairs: list[tuple[Entry, Entry]]) -> str:
    contradictions = [(a, b) for a, b in pairs if a.label != b.label]
    (entry, earlier), *_ = contradictions or pairs
    labels = f"; {len(contradictions)} of them with another label" if contradictions else ""
    return (
        f"{len(pairs)} of {len(evidence.entries(name))} {name} images in {evidence.place} repeat another one of the "
        f"split, byte for byte{labels} {_example(len(pairs), entry.path, earlier.path)}"
    )


def _run(checks: Iterable[Callable[[AnyEvidence], list[str]]], evidence: AnyEvidence) -> tuple[str, ...]:
    return tuple(sentence for check in checks for sentence in check(evidence))


def _classes_seen(evidence: Evidence) -> int:
    return len({entry.label for entry in evidence.entries(*evidence.training)})
