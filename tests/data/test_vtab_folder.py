"""The reader of VTAB-1k folders: names, nesting, missing and inconsistent split files, links."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from shipbench.data.scanning import scan_images
from shipbench.data.vtab.evidence import gather
from shipbench.data.vtab.folder import find_base, find_task, open_task
from shipbench.data.vtab.source import VtabFolder
from shipbench.errors import InputError, ShipbenchError
from shipbench.tasks.catalogue import VTAB
from shipbench.tasks.registry import get_task
from tests.data.builders import vtab_tree

DTD = get_task("dtd")


def edit(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


def test_reads_all_nineteen_tasks(tmp_path: Path) -> None:
    root = vtab_tree(tmp_path)
    for task in VTAB.tasks:
        folder = open_task(task, root)
        assert [len(folder.split(name)) for name in ("train800", "val200", "train", "test")] == [8, 2, 10, 6]
        assert [entry.label for entry in folder.split("train")] == [i % task.num_classes for i in range(10)]


@pytest.mark.parametrize(("name", "alias"), [("cifar100", "cifar"), ("oxford_iiit_pet", "oxford_pet")])
def test_accepts_the_other_folder_name(tmp_path: Path, name: str, alias: str) -> None:
    root = vtab_tree(tmp_path, tasks=[name], folders={name: alias})
    assert open_task(get_task(name), root).path == (root / alias).resolve()


def test_prefers_the_canonical_folder(tmp_path: Path) -> None:
    vtab_tree(tmp_path, tasks=["cifar100"], folders={"cifar100": "cifar"})
    vtab_tree(tmp_path, tasks=["cifar100"])
    assert find_task(get_task("cifar100"), tmp_path).name == "cifar100"


@pytest.mark.parametrize("inside", ["vtab-1k", "a/b/c"])
def test_finds_a_nested_copy(tmp_path: Path, inside: str) -> None:
    vtab_tree(tmp_path / inside, tasks=["dtd"])
    (tmp_path / "__MACOSX" / "dtd").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    assert find_base(tmp_path) == tmp_path / inside


def test_two_nested_copies_are_ambiguous(tmp_path: Path) -> None:
    vtab_tree(tmp_path / "old", tasks=["dtd"])
    vtab_tree(tmp_path / "new", tasks=["dtd"])
    with pytest.raises(InputError, match="several copies"):
        find_base(tmp_path)


def test_without_a_root_the_error_names_the_option() -> None:
    with pytest.raises(InputError, match=r"--data DIR or set SHIPBENCH_DATA .*shipbench data fetch"):
        VtabFolder().open(DTD, None, ("test",))


def test_a_root_without_tasks_and_a_root_that_is_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no VTAB-1k task"):
        find_base(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        find_base(tmp_path / "nowhere")


def test_a_missing_task_names_its_folders(dtd: Path) -> None:
    with pytest.raises(InputError, match=r"no folder called cifar100 or cifar"):
        open_task(get_task("cifar"), dtd)


@pytest.mark.parametrize("name", ["train800", "val200", "test"])
def test_a_missing_split_file_is_refused(dtd: Path, name: str) -> None:
    (dtd / "dtd" / f"{name}.txt").unlink()
    with pytest.raises(InputError, match=rf"{name}\.txt is missing"):
        open_task(DTD, dtd)


def test_without_the_test_split_its_file_is_not_opened(dtd: Path) -> None:
    whole = open_task(DTD, dtd)
    (dtd / "dtd" / "test.txt").unlink()
    folder = open_task(DTD, dtd, with_test=False)
    assert set(folder.entries) == {"train800", "val200"}
    assert folder.split("train") == whole.split("train")
    with pytest.raises(ShipbenchError, match="opened without its 'test' split"):
        folder.split("test")


def test_train_needs_no_file_of_its_own(dtd: Path) -> None:
    whole = open_task(DTD, dtd).split("train")
    (dtd / "dtd" / "train800val200.txt").unlink()
    assert open_task(DTD, dtd).split("train") == whole


def test_a_full_train800val200_alone_is_split_800_to_200(full_size_kitti: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kitti"
    folder.mkdir()
    for name in ("train800val200.txt", "test.txt"):
        (folder / name).write_bytes((full_size_kitti / "kitti" / name).read_bytes())
    kitti = open_task(get_task("kitti"), tmp_path)
    assert [len(kitti.split(name)) for name in ("train800", "val200")] == [800, 200]
    assert kitti.split("val200")[0].path == "images/train800val200/000800.png"
    splits = gather(get_task("kitti"), tmp_path, 1).splits
    assert [(name, len(entries)) for name, entries in splits.items()][:3] == [
        ("train800", 800), ("val200", 200), ("train800val200", 1000),
    ]  # fmt: skip


def test_a_short_train800val200_alone_is_refused(dtd: Path) -> None:
    for name in ("train800", "val200"):
        (dtd / "dtd" / f"{name}.txt").unlink()
    with pytest.raises(InputError, match=r"train800\.txt is missing"):
        open_task(DTD, dtd)


@pytest.mark.parametrize(("old", "new", "line"), [("000009.png 9", "000009.png 8", 10), ("000000.png 0\n", "", 1)])
def test_split_files_that_disagree_are_refused(dtd: Path, old: str, new: str, line: int) -> None:
    edit(dtd / "dtd" / "train800val200.txt", f"images/train800val200/{old}", f"images/train800val200/{new}" * bool(new))
    with pytest.raises(InputError, match=rf"not train800 followed by val200 \(line {line}\)"):
        open_task(DTD, dtd)


def test_scan_reports_missing_files_and_folders(dtd: Path) -> None:
    folder = (dtd / "dtd").resolve()
    scan = scan_images(folder, ["images/test/000000.png", "images/test/99.png", "pictures/0.png", "test.txt"])
    assert set(scan.files) == {"images/test/000000.png", "test.txt"}
    assert [fault.removeprefix(f"{folder}/") for fault in scan.faults] == [
        "images/test/99.png is missing",
        "pictures/0.png is missing",
    ]


def test_scan_follows_links(dtd: Path, tmp_path: Path) -> None:
    folder = (dtd / "dtd").resolve()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "0.png").write_bytes(b"mine")
    (folder / "images" / "test" / "link.png").symlink_to(outside / "0.png")
    (folder / "images" / "away").symlink_to(outside)
    (folder / "images" / "test" / "inside.png").symlink_to(folder / "images" / "test" / "000000.png")
    paths = ["images/test/link.png", "images/away/0.png", "images/test/inside.png"]
    scan = scan_images(folder, paths)
    assert set(scan.files) == set(paths)
    assert scan.files["images/test/link.png"].st_size == 4
    assert scan.faults == ()


def test_scan_leaves_it_to_the_file_system_which_names_are_equal(dtd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a Mac, a listing may spell an accent in two letters where the split file has one, or a name in other case."""
    folder, scandir = (dtd / "dtd").resolve(), os.scandir
    (folder / "images" / "caf\u00e9.png").write_bytes(b"mine")

    def spelled_apart(place: Path) -> AbstractContextManager[list[SimpleNamespace]]:
        with scandir(place) as items:
            return nullcontext([SimpleNamespace(name=unicodedata.normalize("NFD", item.name)) for item in items])

    monkeypatch.setattr(os, "scandir", spelled_apart)
    scan = scan_images(folder, ["images/caf\u00e9.png", "images/absent.png"])
    assert [(name, status.st_size) for name, status in scan.files.items()] == [("images/caf\u00e9.png", 4)]
    assert scan.faults == (f"{folder}/images/absent.png is missing",)


def test_scan_refuses_everything_but_regular_files(dtd: Path) -> None:
    folder = (dtd / "dtd").resolve()
    os.mkfifo(folder / "images" / "pipe.png")
    (folder / "images" / "broken.png").symlink_to(folder / "nowhere.png")
    (folder / "images" / "loop.png").symlink_to("loop.png")
    scan = scan_images(folder, ["images/pipe.png", "images/test", "images/broken.png", "images/loop.png"])
    assert not scan.files
    broken = "which does not exist; restore the target or replace the link with what it stood for"
    assert set(scan.faults) == {
        f"{folder}/images/pipe.png is not a regular file",
        f"{folder}/images/test is not a regular file but a folder",
        f"{folder}/images/broken.png is a link to {folder}/nowhere.png, {broken}",
        f"{folder}/images/loop.png is a link to loop.png, {broken}",
    }


def test_a_disk_that_is_not_mounted_is_one_fault(dtd: Path) -> None:
    shutil.rmtree(dtd / "dtd/images")
    (dtd / "dtd/images").symlink_to("/no/such/disk")
    folder = (dtd / "dtd").resolve()
    (fault,) = scan_images(folder, ["images/test/000000.png", "images/test/1.png", "images/val200/2.png"]).faults
    assert fault.startswith(f"{folder}/images is a link to /no/such/disk, which does not exist")


@pytest.mark.parametrize("name", ["val200", "train800val200"])
def test_a_broken_link_is_not_a_missing_split_file(dtd: Path, name: str) -> None:
    (dtd / "dtd" / f"{name}.txt").unlink()
    (dtd / "dtd" / f"{name}.txt").symlink_to("/no/such/file.txt")
    with pytest.raises(InputError, match=rf"{name}\.txt is a link to /no/such/file\.txt, which does not exist"):
        open_task(DTD, dtd)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("oxford_iiit_pet", "oxford_pets"),
        ("smallnorb_azi", "smallnorb_azimuth"),
        ("dsprites_loc", "dsprites_location"),
        ("dsprites_loc", "dsprites_position"),
        ("clevr_dist", "clevr-distance"),
        ("dtd", "DTD"),
        ("oxford_flowers102", "flowers102"),
        ("diabetic_retinopathy", "diabetic_retinopaty"),
    ],
)
def test_a_folder_that_resembles_a_task_is_suggested(tmp_path: Path, name: str, folder: str) -> None:
    advice = re.escape(f"; if {tmp_path / folder} is the task {name}, rename it to {name}")
    (tmp_path / folder).mkdir()
    with pytest.raises(InputError, match=f"holds no VTAB-1k task.*{advice}"):
        find_base(tmp_path)
    vtab_tree(tmp_path, tasks=["svhn"])
    with pytest.raises(InputError, match=f"has no folder called {name}.*{advice}"):
        find_task(get_task(name), tmp_path)
    with pytest.raises(InputError) as caught:
        find_task(get_task("eurosat"), tmp_path)
    assert "rename" not in str(caught.value)


@pytest.mark.parametrize("folder", ["dsprites", "clevr", "smallnorb", "images", "cifar10", "caltech256"])
def test_a_folder_that_resembles_no_task_or_several_is_not_suggested(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    with pytest.raises(InputError) as caught:
        find_base(tmp_path)
    assert "rename" not in str(caught.value)


def test_a_link_beside_a_copy_is_no_second_copy(tmp_path: Path) -> None:
    vtab_tree(tmp_path / "2024", tasks=["dtd"])
    (tmp_path / "current").symlink_to("2024")
    assert find_base(tmp_path) == tmp_path / "2024"


@pytest.mark.parametrize("other", ["test.txt", "val200.txt"])
def test_two_labels_for_one_image_are_refused(dtd: Path, other: str) -> None:
    (dtd / "dtd/train800val200.txt").unlink()
    edit(dtd / "dtd" / other, f"images/{other.removesuffix('.txt')}/000001.png", "images/train800/000000.png")
    label = open_label(dtd / "dtd" / other, "images/train800/000000.png")
    words = f"such as images/train800/000000.png with the labels 0, {label} in train800.txt, {other}; get another copy"
    with pytest.raises(InputError, match=words):
        open_task(DTD, dtd)


def open_label(file: Path, path: str) -> int:
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(path))


def test_train800val200_may_not_change_a_label_in_place(dtd: Path) -> None:
    union = dtd / "dtd/train800val200.txt"
    union.write_text(union.read_text().replace("/train800val200/000001.png", "/train800/000002.png"))
    with pytest.raises(InputError, match=r"with the labels 1, 2 in train800\.txt, train800val200\.txt"):
        open_task(DTD, dtd)


def test_train800val200_may_name_the_images_of_train800(dtd: Path) -> None:
    union = dtd / "dtd/train800val200.txt"
    union.write_text((dtd / "dtd/train800.txt").read_text() + (dtd / "dtd/val200.txt").read_text())
    assert len(open_task(DTD, dtd).split("train")) == 10


def test_images_listed_twice_are_a_warning(dtd: Path) -> None:
    edit(dtd / "dtd/test.txt", "images/test/000001.png 1", "images/test/000000.png 0")
    warning = VtabFolder().open(DTD, dtd, ("train", "test")).warning
    assert "1 image that the split files list more than once; check the copy with: shipbench data verify" in warning


def test_a_task_folder_may_itself_be_a_link(dtd: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "dtd").symlink_to(dtd / "dtd")
    assert open_task(DTD, linked).path == (dtd / "dtd").resolve()
