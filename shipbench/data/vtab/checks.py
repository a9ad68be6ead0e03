"""Checks that only a VTAB-1k folder needs: its split files, its counts, its known originals."""

from __future__ import annotations

from shipbench.counts import counted
from shipbench.data.images import LOSSY
from shipbench.data.inspection import checks as common
from shipbench.data.inspection.checks import Checks, first_few, shared_with_test
from shipbench.data.scanning import absence
from shipbench.data.types import Entry
from shipbench.data.vtab.distinctness import listed_paths
from shipbench.data.vtab.evidence import SPLIT_FILES, VtabEvidence
from shipbench.data.vtab.folder import ROLES, UNION, label_disagreement
from shipbench.data.vtab.split_files import describe_fault

_LOSSLESS_ORIGINALS = frozenset(
    {"cifar100", "svhn", "patch_camelyon", "clevr_count", "clevr_dist", "kitti"}
    | {"dsprites_loc", "dsprites_ori", "smallnorb_azi", "smallnorb_ele"}
)
"""The tasks published as arrays or PNG (in TensorFlow Datasets); the others were published as JPEG."""
# Their orientations are linspace(0, 2 pi, 40), both ends included (google-deepmind/dsprites-dataset, issue 7).
_HAVE_TWINS = frozenset({"dsprites_loc", "dsprites_ori"})
_WHY_TWINS = "a few are expected, because the first and the last of dSprites' 40 orientations are the same picture"


def missing_splits(evidence: VtabEvidence) -> list[str]:
    """Find missing split files, train800val200 aside."""
    missing = [evidence.folder / f"{role}.txt" for role in ROLES if role not in evidence.splits]
    return [f"{absence(file)}, so the task cannot be used" for file in missing]


def malformed_lines(evidence: VtabEvidence) -> list[str]:
    """Find empty split files, lines without a label, labels out of range, absolute and escaping paths."""
    faults: list[str] = []
    for name, split in evidence.split_files.items():
        file = evidence.folder / f"{name}.txt"
        faults += first_few([describe_fault(file, fault) for fault in split.faults])
    return faults


def wrong_counts(evidence: VtabEvidence) -> list[str]:
    """Find splits whose number of images differs from the catalogue's."""
    expected = {**evidence.task.counts, UNION: evidence.task.n_train}
    return [
        f"{evidence.folder / name}.txt lists {counted(len(entries), 'image')} instead of {expected[name]}"
        for name, entries in evidence.splits.items()
        if len(entries) != expected[name]
    ]


def repeated_paths(evidence: VtabEvidence) -> list[str]:
    """Find images that a split file or two disjoint splits list more than once, and images with two labels."""
    faulty = [path for path in listed_paths(evidence.splits) if path.repeated or len(path.labels) > 1]
    return first_few([f"{evidence.folder} lists more than once: {path}" for path in faulty])


def missing_images(evidence: VtabEvidence) -> list[str]:
    """Find listed images that do not exist or are not regular files."""
    return first_few(evidence.file_faults)


def disagreeing_splits(evidence: VtabEvidence) -> list[str]:
    """Find where train800val200 differs from train800 followed by val200: the first label, else the image bytes."""
    if not {"train800", "val200", UNION} <= evidence.splits.keys():
        return []
    train, union = evidence.entries("train800", "val200"), evidence.entries(UNION)
    disagreement = f"{evidence.folder / UNION}.txt is not train800 followed by val200"
    line = label_disagreement(train, union)
    if line is not None:
        return [f"{disagreement}: the labels first differ at line {line}"]
    pairs = [(a.path, b.path) for a, b in zip(train, union, strict=True) if not _same_image(evidence, a, b)]
    return first_few([f"{disagreement}: {b} and {a} are different images" for a, b in pairs])


def test_images_in_training(evidence: VtabEvidence) -> list[str]:
    """Find test images that are also training images, byte for byte; dSprites has some in every correct copy."""
    return [] if evidence.task.name in _HAVE_TWINS else common.test_images_in_training(evidence)


def twins_in_dsprites(evidence: VtabEvidence) -> list[str]:
    """Warn about test images of a dSprites task that are also training images, byte for byte."""
    shared = shared_with_test(evidence) if evidence.task.name in _HAVE_TWINS else ""
    return [f"{shared}; {_WHY_TWINS}"] if shared else []


def repeated_images(evidence: VtabEvidence) -> list[str]:
    """Warn about images that occur twice in a split, byte for byte; dSprites has some in every correct copy."""
    reason = f"; {_WHY_TWINS}" if evidence.task.name in _HAVE_TWINS else ""
    return [f"{sentence}{reason}" for sentence in common.repeated_images(evidence)]


def lossy_copy(evidence: VtabEvidence) -> list[str]:
    """Warn about lossy copies of tasks whose originals are lossless."""
    lossy = sum(facts.identity.kind in LOSSY for facts in evidence.images.values())
    if not lossy or evidence.task.name not in _LOSSLESS_ORIGINALS:
        return []
    cost = " (on CIFAR-100, JPEG of default quality costs about ten points)" if evidence.task.name == "cifar100" else ""
    return [
        f"LOSSY COPY: {lossy} of {len(evidence.images)} images are stored as JPEG or lossy WebP, but the originals are "
        f"lossless{cost}; do not compare results with those of a lossless copy"
    ]


def other_folder(evidence: VtabEvidence) -> list[str]:
    """Note further folders of the same task, which are not read."""
    read, *others = evidence.folder_names
    return [f"the folder {other} is ignored because {read} holds the same task" for other in others]


def without_union(evidence: VtabEvidence) -> list[str]:
    """Note a missing train800val200, without which the copy cannot be checked against itself."""
    return [] if UNION in evidence.splits else [f"{UNION}.txt is missing; train800 followed by val200 is used instead"]


def windows_line_endings(evidence: VtabEvidence) -> list[str]:
    """Note split files with Windows line endings."""
    names = [f"{name}.txt" for name, split in evidence.split_files.items() if split.windows_line_endings]
    return [f"Windows line endings in {', '.join(names)}"] if names else []


def paths_with_spaces(evidence: VtabEvidence) -> list[str]:
    """Note image paths that contain spaces."""
    spaced = [entry.path for entry in evidence.entries(*SPLIT_FILES) if " " in entry.path]
    return [f"image paths with spaces: {len(spaced)}, such as {spaced[0]!r}"] if spaced else []


CHECKS: Checks[VtabEvidence] = Checks(
    problems=(
        missing_splits,
        malformed_lines,
        wrong_counts,
        repeated_paths,
        missing_images,
        common.broken_images,
        disagreeing_splits,
        test_images_in_training,
    ),
    warnings=(
        lossy_copy,
        common.mixed_formats,
        common.validation_images_in_train800,
        twins_in_dsprites,
        repeated_images,
    ),
    notes=(
        other_folder,
        without_union,
        windows_line_endings,
        paths_with_spaces,
        common.unusual_formats,
        common.converted_images,
        common.unseen_classes,
    ),
)


def _same_image(evidence: VtabEvidence, first: Entry, second: Entry) -> bool:
    # An unreadable image is reported as missing, not as different.
    a, b = evidence.images.get(first.path), evidence.images.get(second.path)
    return a is None or b is None or a.identity.sha256 == b.identity.sha256
