"""What can be wrong with a copy of a VTAB-1k task; every check is a function from the evidence to sentences.

Problems make results wrong or impossible, warnings move them, notes are worth knowing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from shipbench.data.inspection.evidence import SPLIT_FILES, Evidence
from shipbench.data.vtab.folder import ROLES, UNION, expected_counts, label_disagreement
from shipbench.data.vtab.split_files import Entry, describe_fault

Check: TypeAlias = Callable[[Evidence], list[str]]

_SHOWN = 3
_LOSSLESS_SOURCES = frozenset(
    {"cifar100", "svhn", "patch_camelyon", "clevr_count", "clevr_dist", "kitti"}
    | {"dsprites_loc", "dsprites_ori", "smallnorb_azi", "smallnorb_ele"}
)
"""The tasks whose public originals are arrays or PNG (TensorFlow Datasets); the others are JPEG from the start."""
# Their orientations are linspace(0, 2 pi, 40), both ends included (google-deepmind/dsprites-dataset, issue 7).
_HAVE_TWINS = frozenset({"dsprites_loc", "dsprites_ori"})


def missing_splits(evidence: Evidence) -> list[str]:
    """Find split files that training, validation and test need and that do not exist."""
    return [f"{evidence.folder / role}.txt is missing" for role in ROLES if role not in evidence.splits]


def malformed_lines(evidence: Evidence) -> list[str]:
    """Find empty split files, lines without a label, labels out of range, absolute and escaping paths."""
    found: list[str] = []
    for name, split in evidence.splits.items():
        file = evidence.folder / f"{name}.txt"
        found += _some([describe_fault(file, fault) for fault in split.faults])
    return found


def wrong_counts(evidence: Evidence) -> list[str]:
    """Find splits that do not have the catalogue's number of images."""
    expected = expected_counts(evidence.task)
    counts = {name: len(split.entries) for name, split in evidence.splits.items()}
    return [
        f"{evidence.folder / name}.txt lists {count} images instead of {expected[name]}"
        for name, count in counts.items()
        if count != expected[name]
    ]


def missing_images(evidence: Evidence) -> list[str]:
    """Find images that are listed and are not there, or are links out of the task folder."""
    return _some(evidence.file_faults)


def broken_images(evidence: Evidence) -> list[str]:
    """Find images that cannot be decoded: truncated, damaged, too large or no images at all."""
    return _some([facts.fault for facts in evidence.images.values() if facts.fault])


def disagreeing_splits(evidence: Evidence) -> list[str]:
    """Find the first difference between train800val200 and train800 followed by val200: labels, then image bytes."""
    if not {"train800", "val200", UNION} <= evidence.splits.keys():
        return []
    train, union = evidence.entries("train800", "val200"), evidence.entries(UNION)
    file = evidence.folder / f"{UNION}.txt"
    line = label_disagreement(train, union)
    if line is not None:
        return [f"{file} is not train800 followed by val200: line {line} differs"]
    pairs = [(a.path, b.path) for a, b in zip(train, union, strict=True) if not _same_image(evidence, a, b)]
    return _some([f"{file} is not train800 followed by val200: {b} is not the image {a}" for a, b in pairs])


def test_images_in_training(evidence: Evidence) -> list[str]:
    """Find test images that are, byte for byte, also training images, where no correct copy has any."""
    shared = "" if evidence.task.name in _HAVE_TWINS else _shared_with_test(evidence)
    advice = (
        "results on them do not count: get another copy, and if it has them too, report their share with the results"
    )
    return [f"{shared}; {advice}"] if shared else []


def twins_in_dsprites(evidence: Evidence) -> list[str]:
    """Warn of the test images of a dSprites task that are, byte for byte, also training images."""
    shared = _shared_with_test(evidence) if evidence.task.name in _HAVE_TWINS else ""
    why = "a handful is normal: the first and the last of dSprites' 40 orientations are the same picture"
    return [f"{shared}; {why}"] if shared else []


def lossy_copy(evidence: Evidence) -> list[str]:
    """Warn of JPEG copies of tasks whose originals are lossless."""
    lossy = sum(facts.identity.kind in ("jpeg", "webp") for facts in evidence.images.values())
    if not lossy or evidence.task.name not in _LOSSLESS_SOURCES:
        return []
    cost = " (default-quality JPEG costs CIFAR-100 about ten points)" if evidence.task.name == "cifar100" else ""
    return [
        f"LOSSY COPY: {lossy} of {len(evidence.images)} images are stored as JPEG, the originals are lossless{cost}; "
        "do not compare its results with those of a PNG copy"
    ]


def mixed_formats(evidence: Evidence) -> list[str]:
    """Warn of tasks whose images are partly JPEG and partly lossless."""
    kinds = sorted({facts.identity.kind for facts in evidence.images.values()})
    lossy = [kind for kind in kinds if kind in ("jpeg", "webp")]
    return [f"image formats are mixed: {', '.join(kinds)}"] if lossy and len(lossy) < len(kinds) else []


def validation_images_in_train800(evidence: Evidence) -> list[str]:
    """Warn of validation images that are, byte for byte, also in train800."""
    shared = _shared(evidence, "val200", ("train800",))
    return _some([f"val200 image {a} is also train800 image {b}" for a, b in shared.items()])


def other_folder(evidence: Evidence) -> list[str]:
    """Note a second folder of the same task, which is not read."""
    read, *others = evidence.folder_names
    return [f"the folder {other} is not read, {read} is" for other in others]


def without_union(evidence: Evidence) -> list[str]:
    """Note a missing train800val200, without which the copy cannot be checked against itself."""
    return [] if UNION in evidence.splits else [f"{UNION}.txt is missing; train800 followed by val200 is used"]


def windows_line_ends(evidence: Evidence) -> list[str]:
    """Note split files with Windows line ends."""
    names = [
        f"{name}.txt" for name in SPLIT_FILES if name in evidence.splits and evidence.splits[name].windows_line_ends
    ]
    return [f"Windows line ends in {', '.join(names)}"] if names else []


def paths_with_spaces(evidence: Evidence) -> list[str]:
    """Note image paths that contain spaces."""
    spaced = [entry.path for entry in evidence.entries(*SPLIT_FILES) if " " in entry.path]
    return [f"{len(spaced)} image paths contain spaces, as {spaced[0]!r}"] if spaced else []


def unusual_formats(evidence: Evidence) -> list[str]:
    """Note images that are neither JPEG nor PNG, and under which of the two names records list them."""
    kinds = {facts.identity.kind for facts in evidence.images.values() if not facts.fault} - {"jpeg", "png"}
    groups = {"webp": "jpeg"}
    return [f"{kind} images are recorded as {groups.get(kind, 'png')}" for kind in sorted(kinds)]


def unseen_classes(evidence: Evidence) -> list[str]:
    """Note classes without a training image."""
    unseen = evidence.task.num_classes - len({entry.label for entry in evidence.entries("train800", "val200")})
    return [f"{unseen} of {evidence.task.num_classes} classes have no training image"] if unseen else []


PROBLEMS: tuple[Check, ...] = (
    missing_splits,
    malformed_lines,
    wrong_counts,
    missing_images,
    broken_images,
    disagreeing_splits,
    test_images_in_training,
)
WARNINGS: tuple[Check, ...] = (lossy_copy, mixed_formats, validation_images_in_train800, twins_in_dsprites)
NOTES: tuple[Check, ...] = (
    other_folder,
    without_union,
    windows_line_ends,
    paths_with_spaces,
    unusual_formats,
    unseen_classes,
)


def _some(sentences: Iterable[str]) -> list[str]:
    listed = list(sentences)
    more = len(listed) - _SHOWN
    return listed if more <= 0 else [*listed[:_SHOWN], f"... and {more} more of the same kind"]


def _same_image(evidence: Evidence, first: Entry, second: Entry) -> bool:
    # An image that could not be read is reported as missing, not as different.
    a, b = evidence.images.get(first.path), evidence.images.get(second.path)
    return a is None or b is None or a.identity.sha256 == b.identity.sha256


def _shared_with_test(evidence: Evidence) -> str:
    """Say how many test images are training images too, with an example; an empty text if none is."""
    shared = _shared(evidence, "test", ("train800", "val200", UNION))
    if not shared:
        return ""
    total, example = len(evidence.entries("test")), " is ".join(next(iter(shared.items())))
    share = f"{len(shared)} of {total} test images ({len(shared) / total:.2%})"
    return f"{share} in {evidence.folder} are, byte for byte, also training images, as {example}"


def _shared(evidence: Evidence, name: str, others: tuple[str, ...]) -> dict[str, str]:
    hashes = {path: facts.identity.sha256 for path, facts in evidence.images.items()}
    known = {hashes[entry.path]: entry.path for entry in reversed(evidence.entries(*others)) if entry.path in hashes}
    listed = [entry.path for entry in evidence.entries(name) if hashes.get(entry.path) in known]
    return {path: known[hashes[path]] for path in listed}
