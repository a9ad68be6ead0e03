"""Verification: a sound copy passes, and every kind of damage is reported."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shipbench.data import fingerprint
from shipbench.data.inspection.verify import verify
from shipbench.data.types import TaskReport
from shipbench.errors import InputError
from shipbench.tasks.catalogue import VTAB
from shipbench.tasks.registry import get_task
from tests.data.builders import encode, small_task, vtab_tree

DTD = small_task("dtd")
OTHER = encode(np.full((10, 12, 3), 9, np.uint8))


def check(root: Path, name: str = "dtd") -> TaskReport:
    (report,) = verify(root, tasks=[small_task(name)])
    return report


def rewrite(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / f"{name}.txt"
        text = file.read_bytes()
        assert old.encode() in text
        file.write_bytes(text.replace(old.encode(), new.encode()))

    return change


def replace_image(path: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / path).write_bytes(data) and None


def truncate_image(folder: Path) -> None:
    image = folder / "images/test/000004.png"
    image.write_bytes(image.read_bytes()[:-30])


def share_image(source: str, target: str) -> Callable[[Path], None]:
    return lambda folder: shutil.copy(folder / source, folder / target) and None


def link_to_nothing(folder: Path) -> None:
    (folder / "images/test/000002.png").unlink()
    (folder / "images/test/000002.png").symlink_to("/no/such/file.png")


def empty_image(folder: Path) -> None:
    (folder / "images/test/000004.png").write_bytes(b"")


def replace_everywhere(index: int, data: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / f"images/train800/{index:06d}.png").write_bytes(data)
        (folder / f"images/train800val200/{index:06d}.png").write_bytes(data)

    return change


def test_a_sound_copy_has_nothing_to_report(dtd: Path) -> None:
    report = check(dtd)
    assert report.ok
    assert report.problems == report.warnings == ()
    assert report.notes == ("37 of 47 classes have no training image",)
    assert report.folder == dtd / "dtd"
    assert dict(report.counts) == {"train800": 8, "val200": 2, "train800val200": 10, "test": 6}
    assert (report.image_format, report.smallest, report.largest) == ("png", (12, 10), (12, 10))
    assert report.classes_seen == 10
    assert report.fingerprint == fingerprint(DTD, dtd)


def test_counts_are_compared_with_the_catalogue(full_size_kitti: Path) -> None:
    (report,) = verify(full_size_kitti, tasks=[get_task("kitti")])
    assert report.problems == report.warnings == report.notes == ()


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: (folder / "val200.txt").unlink(), "val200.txt is missing"),
        (lambda folder: (folder / "test.txt").write_bytes(b""), "test.txt is empty"),
        (rewrite("test", "000003.png 3", "000003.png 47"), "test.txt, line 4: the label 47 is out of range"),
        (rewrite("test", "000003.png 3", "000003.png -3"), "test.txt, line 4: the label '-3' is not an integer"),
        (rewrite("test", "images/test/000003", "/data/3"), "test.txt, line 4: the path '/data/3.png' is absolute"),
        (rewrite("test", "images/test/000003", "../3"), "test.txt, line 4: the path '../3.png' leaves"),
        (rewrite("test", "000003.png 3", "000003.png"), "test.txt, line 4: expected 'path label'"),
        (rewrite("test", "images/test/000003.png 3\n", ""), "test.txt lists 5 images instead of 6"),
        (lambda folder: (folder / "images/test/000002.png").unlink(), "images/test/000002.png is missing"),
        (link_to_nothing, "images/test/000002.png is a link to /no/such/file.png, which does not exist"),
        (empty_image, "images/test/000004.png is empty; get the file again"),
        (
            replace_image("images/test/000004.png", b"GIF89a"),
            "images/test/000004.png is a GIF image; convert it to PNG",
        ),
        (
            replace_image("images/test/000004.png", b"version https://git-lfs.github.com/spec/v1\n"),
            "images/test/000004.png is a Git LFS pointer",
        ),
        (
            rewrite("test", "images/test/000003.png 3", "images/test/000002.png 2"),
            "lists more than once: images/test/000002.png in test.txt (2 times)",
        ),
        (
            rewrite("test", "images/test/000003.png 3", "images/test/000002.png 3"),
            "lists more than once: images/test/000002.png with the labels 2, 3 in test.txt (2 times)",
        ),
        (truncate_image, "images/test/000004.png cannot be decoded"),
        (replace_image("images/test/000004.png", b"text"), "images/test/000004.png is not an image"),
        (
            rewrite("train800val200", "000009.png 9", "000009.png 8"),
            "not train800 followed by val200: the labels first differ at line 10",
        ),
        (
            replace_image("images/train800val200/000008.png", OTHER),
            "images/train800val200/000008.png and images/val200/000000.png are different images",
        ),
        (
            share_image("images/train800/000001.png", "images/test/000005.png"),
            "(for example, images/test/000005.png is images/train800/000001.png); they inflate",
        ),
        (
            share_image("images/val200/000001.png", "images/test/000000.png"),
            "(for example, images/test/000000.png is images/val200/000001.png); they inflate",
        ),
    ],
)
def test_every_problem_is_found_and_only_that_one(dtd: Path, damage: Callable[[Path], None], problem: str) -> None:
    damage(dtd / "dtd")
    report = check(dtd)
    assert not report.ok
    kinds = [sentence for sentence in report.problems if problem in sentence]
    assert len(kinds) == 1, report.problems
    consequences = [sentence for sentence in report.problems if problem not in sentence]
    assert all(" instead of " in sentence for sentence in consequences)


def test_shared_images_are_reported_with_their_number_and_share(dtd: Path) -> None:
    for index in (1, 2):
        share_image(f"images/train800/{index:06d}.png", f"images/test/{index:06d}.png")(dtd / "dtd")
    (problem,) = check(dtd).problems
    assert problem.startswith(f"2 of 6 test images (33.33%) in {dtd / 'dtd'} are")
    assert "--list FILE.csv names all); they inflate the test accuracy, so get another copy" in problem
    files = [[str(dtd / f"dtd/images/{split}/{index:06d}.png") for split in ("test", "train800")] for index in (1, 2)]
    assert [(each.image, each.equal_to) for each in check(dtd).findings] == [tuple(pair) for pair in files]
    assert {each.kind for each in check(dtd).findings} == {"test and train800"}


@pytest.mark.parametrize("name", ["dsprites_loc", "dsprites_ori"])
def test_twins_in_dsprites_are_an_explained_warning(tmp_path: Path, private_cache: Path, name: str) -> None:
    root = vtab_tree(tmp_path / "vtab", tasks=[name])
    assert check(root, name).warnings == ()
    share_image("images/train800/000001.png", "images/test/000005.png")(root / name)
    report = check(root, name)
    assert report.problems == ()
    (warning,) = report.warnings
    assert warning.startswith("1 of 6 test images (16.67%)")
    assert "40 orientations are the same picture" in warning


def test_swapped_images_in_train800val200_are_found(dtd: Path) -> None:
    union = dtd / "dtd/images/train800val200"
    (union / "000001.png").rename(union / "x.png")
    (union / "000002.png").rename(union / "000001.png")
    (union / "x.png").rename(union / "000002.png")
    report = check(dtd)
    assert len(report.problems) == 2
    assert "images/train800val200/000001.png and images/train800/000001.png are different images" in report.problems[0]


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (rewrite("test", "\n", "\r\n"), "Windows line endings in test.txt"),
        (lambda folder: (folder / "train800val200.txt").unlink(), "train800val200.txt is missing"),
        (replace_everywhere(3, encode(np.full((9, 9, 3), 3, np.uint8), "bmp")), "bmp images are recorded as png"),
        (
            lambda folder: shutil.copytree(folder, folder.parent / "cifar") and None,
            "the folder cifar is ignored because cifar100",
        ),
    ],
)
def test_notes_do_not_fail_a_copy(
    tmp_path: Path, private_cache: Path, damage: Callable[[Path], None], note: str
) -> None:
    root = vtab_tree(tmp_path / "vtab", tasks=["cifar100"])
    damage(root / "cifar100")
    report = check(root, "cifar100")
    assert report.ok, report.problems
    assert any(note in sentence for sentence in report.notes), report.notes


def test_paths_with_spaces_are_read_and_noted(dtd: Path) -> None:
    before = check(dtd)
    image = dtd / "dtd/images/test/000001.png"
    image.rename(image.with_name("my image 1.png"))
    rewrite("test", "000001.png", "my image 1.png")(dtd / "dtd")
    report = check(dtd)
    assert report.ok
    assert "image paths with spaces: 1, such as 'images/test/my image 1.png'" in report.notes
    assert report.fingerprint != before.fingerprint


def test_cifar100_as_jpeg_is_a_warning(tmp_path: Path, private_cache: Path) -> None:
    root = vtab_tree(tmp_path / "vtab", tasks=["cifar100"], image_format="jpeg")
    report = check(root, "cifar100")
    assert report.ok
    assert report.image_format == "jpeg"
    (warning,) = report.warnings
    assert warning.startswith("LOSSY COPY: 26 of 26 images are stored as JPEG")
    assert "ten points" in warning


def test_dtd_as_jpeg_is_no_warning(tmp_path: Path, private_cache: Path) -> None:
    report = check(vtab_tree(tmp_path / "vtab", tasks=["dtd"], image_format="jpeg"))
    assert (report.warnings, report.image_format) == ((), "jpeg")


def test_mixed_formats_are_a_warning(dtd: Path) -> None:
    replace_everywhere(0, encode(np.full((8, 8, 3), 5, np.uint8), "jpeg"))(dtd / "dtd")
    report = check(dtd)
    assert report.ok
    assert report.warnings == ("lossy and lossless images are mixed: jpeg, png",)
    assert (report.smallest, report.largest) == ((8, 8), (12, 10))


def test_validation_images_in_train800_are_a_warning(dtd: Path) -> None:
    replace_everywhere(0, (dtd / "dtd/images/val200/000001.png").read_bytes())(dtd / "dtd")
    assert check(dtd).warnings == (
        "val200 image images/val200/000001.png is also train800 image images/train800/000000.png, byte for byte",
    )


def test_many_faults_of_a_kind_are_counted_not_listed(dtd: Path) -> None:
    for image in (dtd / "dtd/images/test").iterdir():
        image.write_bytes(b"x")
    report = check(dtd)
    assert len(report.problems) == 4
    assert report.problems[-1] == "... and 3 more of the same kind; --list FILE.csv names all"
    assert [(each.kind, each.equal_to) for each in report.findings] == [("broken", "")] * 6
    assert report.findings[0].image == str(dtd / "dtd/images/test/000000.png")


def test_each_missing_task_is_reported(dtd: Path) -> None:
    reports = verify(dtd)
    assert [report.task for report in reports] == [task.name for task in VTAB.tasks]
    missing = [report for report in reports if report.folder is None]
    assert len(missing) == 18
    assert all("no folder called" in report.problems[0] for report in missing)


def test_a_broken_copy_has_a_fingerprint_if_all_files_can_be_read(dtd: Path) -> None:
    truncate_image(dtd / "dtd")
    assert check(dtd).fingerprint == fingerprint(DTD, dtd)
    (dtd / "dtd/images/test/000004.png").unlink()
    assert check(dtd).fingerprint is None


def test_a_folder_without_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no VTAB-1k task"):
        verify(tmp_path)


def test_a_training_image_listed_for_test_is_a_problem(dtd: Path) -> None:
    rewrite("test", "images/test/000003.png 3", "images/train800/000003.png 3")(dtd / "dtd")
    problems = check(dtd).problems
    assert f"{dtd / 'dtd'} lists more than once: images/train800/000003.png in train800.txt, test.txt" in problems


def test_few_images_under_many_lines_are_a_problem(dtd: Path) -> None:
    file = dtd / "dtd/train800.txt"
    (dtd / "dtd/train800val200.txt").unlink()
    file.write_text("".join(f"images/train800/{line % 2:06d}.png {line}\n" for line in range(8)))
    report = check(dtd)
    assert report.problems == tuple(
        f"{dtd / 'dtd'} lists more than once: images/train800/00000{image}.png with the labels {labels} "
        "in train800.txt (4 times)"
        for image, labels in ((0, "0, 2, 4, 6"), (1, "1, 3, 5, 7"))
    )
    assert report.fingerprint is None


def test_equal_images_in_a_split_are_a_warning(dtd: Path) -> None:
    share_image("images/test/000001.png", "images/test/000003.png")(dtd / "dtd")
    report = check(dtd)
    assert report.ok
    assert report.warnings == (
        f"1 of 6 test images in {dtd / 'dtd'} repeat another one of the split, byte for byte; 1 of them with another "
        "label (for example, images/test/000003.png is images/test/000001.png)",
    )


def test_an_image_folder_on_another_disk_is_followed(dtd: Path, tmp_path: Path) -> None:
    before = check(dtd)
    (dtd / "dtd/images").rename(tmp_path / "disk")
    (dtd / "dtd/images").symlink_to(tmp_path / "disk")
    report = check(dtd)
    assert report.ok
    assert report.fingerprint == before.fingerprint
