"""Importing: folders and archives of every kind are imported whole."""

from __future__ import annotations

import errno
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from shipbench.data import fingerprint
from shipbench.data.acquisition.importing import import_archives
from shipbench.errors import InputError
from shipbench.tasks import get_task
from tests.data.archives import TASKS, cut_in_two, import_archive, tarred, zipped
from tests.data.builders import left_in, vtab_tree


def test_a_target_on_a_disk_of_its_own_is_filled_by_renaming_there(
    copy: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target is a link to another disk, or the place where one is mounted."""
    disk, rename = tmp_path / "disk", Path.rename
    disk.mkdir()
    target.parent.mkdir()
    target.symlink_to(disk)

    def rename_on_one_disk(source: Path, place: Path) -> Path:
        if source.resolve().is_relative_to(disk) is not place.resolve().is_relative_to(disk):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(source, place)

    monkeypatch.setattr(Path, "rename", rename_on_one_disk)
    assert import_archive(copy, target) == list(TASKS)
    assert left_in(disk) == list(TASKS)
    assert left_in(target.parent) == [target.name]


@pytest.mark.parametrize(
    "pack",
    [
        lambda copy, to: copy,
        lambda copy, to: copy.parent,
        lambda copy, to: zipped(copy, to / "vtab.zip"),
        lambda copy, to: zipped(copy, to / "vtab.ZIP", "a/vtab-1k/"),
        lambda copy, to: tarred(copy, to / "vtab.tar", "w"),
        lambda copy, to: tarred(copy, to / "vtab.tar.gz", "w:gz", "vtab-1k"),
        lambda copy, to: tarred(copy, to / "vtab.tgz", "w:gz", "./vtab-1k"),
        lambda copy, to: tarred(copy, to / "vtab.tar.xz", "w:xz"),
        lambda copy, to: tarred(copy, to / "vtab.tar.bz2", "w:bz2"),
    ],
)
def test_every_kind_of_source_arrives_whole(
    copy: Path, target: Path, tmp_path: Path, pack: Callable[[Path, Path], Path]
) -> None:
    source = pack(copy, tmp_path)
    assert import_archive(source, target) == list(TASKS)
    assert left_in(target) == list(TASKS)
    assert left_in(target.parent) == ["vtab-1k"]
    for name in TASKS:
        assert fingerprint(get_task(name), target) == fingerprint(get_task(name), copy)


def test_counts_that_differ_from_the_catalogue_are_warned_about(
    copy: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_archive(copy, target)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]
    assert warnings == [
        f"warning: {task} has 8 train800 images instead of 800, 2 val200 images instead of 200, 6 test images instead "
        f"of {n_test}; check the copy with: shipbench data verify {target}"
        for task, n_test in (("cifar100", 10_000), ("dtd", 1880))
    ]


def test_a_complete_task_is_imported_without_a_warning(
    full_size_kitti: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert import_archive(full_size_kitti, target) == ["kitti"]
    assert "warning" not in capsys.readouterr().err


def test_a_second_import_adds_tasks(copy: Path, target: Path, tmp_path: Path) -> None:
    import_archive(copy, target)
    other = vtab_tree(tmp_path / "other", tasks=["svhn"])
    assert import_archive(other, target) == ["svhn"]
    assert left_in(target) == ["cifar100", "dtd", "svhn"]


@pytest.mark.parametrize("present", ["cifar", "cifar100"])
@pytest.mark.parametrize("archive", [False, True])
def test_an_existing_task_is_not_overwritten(
    copy: Path, target: Path, tmp_path: Path, present: str, archive: bool
) -> None:
    (target / present).mkdir(parents=True)
    source = zipped(copy, tmp_path / "vtab.zip") if archive else copy
    with pytest.raises(InputError, match=rf"{present} already exists; remove it"):
        import_archive(source, target)
    assert left_in(target) == [present]
    assert left_in(target.parent) == ["vtab-1k"]


def test_a_source_around_the_target_is_not_copied_into_itself(copy: Path) -> None:
    assert import_archive(copy, copy / "inside") == list(TASKS)
    assert left_in(copy / "inside") == list(TASKS)


def test_a_copy_in_parts_is_one_import(tmp_path: Path, target: Path, private_cache: Path) -> None:
    parts = [zipped(vtab_tree(tmp_path / name, tasks=[name]), tmp_path / f"{name}.zip") for name in TASKS]
    with pytest.raises(
        InputError, match=r"dtd\.zip repeats dtd/images/test/000000\.png, which another part .* every part once"
    ):
        import_archives([*parts, parts[1]], target)
    assert not target.exists()
    assert import_archives(parts, target) == list(TASKS)


def test_a_task_that_is_spread_over_archives_is_put_together(copy: Path, target: Path, tmp_path: Path) -> None:
    parts = cut_in_two(copy, tmp_path)
    for part in parts:
        with pytest.raises(InputError, match=r"parts of the download may be missing: name all of them") as caught:
            import_archive(part, target)
        assert str(caught.value).endswith("nothing was imported")
    assert left_in(target.parent) == []
    assert import_archives(parts, target) == list(TASKS)
    for name in TASKS:
        assert fingerprint(get_task(name), target) == fingerprint(get_task(name), copy)


def test_with_several_parts_one_more_may_be_missing(copy: Path, target: Path, tmp_path: Path) -> None:
    parts = cut_in_two(copy, tmp_path)
    other = zipped(vtab_tree(tmp_path / "other", tasks=["svhn"]), tmp_path / "other.zip")
    with pytest.raises(InputError, match="another part of the download may be missing; nothing was imported") as caught:
        import_archives([parts[0], other], target)
    assert f"{parts[0]} + {other}/cifar100/" in str(caught.value)
    assert import_archives([parts[0], other, parts[1]], target) == ["cifar100", "dtd", "svhn"]


def test_a_disk_without_room_is_refused_before_anything_is_unpacked(
    copy: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = zipped(copy, tmp_path / "vtab.zip")
    written: list[object] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    monkeypatch.setattr("shipbench.data.acquisition.archives._Writer.file", lambda *parts: written.append(parts))
    with pytest.raises(InputError, match=r"unpacks to 0\.0 GB, but the disk has 0\.0 GB free; make room .* imported"):
        import_archive(file, target)
    assert not written


def test_archives_inside_an_archive_are_named(copy: Path, target: Path, tmp_path: Path) -> None:
    for name in ("cifar", "dtd"):
        zipped(copy / name, tmp_path / f"{name}.zip", f"{name}/")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("cifar", "dtd"):
            archive.write(tmp_path / f"{name}.zip", f"vtab/{name}.zip")
    words = r"unpack it and import the archives inside: vtab/cifar\.zip, vtab/dtd\.zip; nothing was imported"
    with pytest.raises(InputError, match=words):
        import_archive(tmp_path / "all.zip", target)
    with pytest.raises(InputError, match=r"import the archives inside: all\.zip, cifar\.zip"):
        import_archive(holding(tmp_path, "all.zip", "cifar.zip"), target)
    assert import_archives([tmp_path / "cifar.zip", tmp_path / "dtd.zip"], target) == list(TASKS)


def holding(folder: Path, *names: str) -> Path:
    holder = folder / "holder"
    holder.mkdir()
    for name in names:
        (folder / name).rename(holder / name)
        (folder / name).write_bytes((holder / name).read_bytes())
    return holder


def test_an_archive_beside_tasks_and_one_in_place_of_images_are_named(
    copy: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zipped(copy / "dtd", copy / "more.zip")
    assert import_archive(copy, target) == list(TASKS)
    assert f"note: archives inside {copy} were not imported: more.zip" in capsys.readouterr().err
    zipped(copy / "dtd" / "images", copy / "dtd" / "images.zip")
    shutil.rmtree(copy / "dtd" / "images")
    with pytest.raises(InputError, match=r"is missing \(16 of 16 .*unpack the archives inside first: dtd/images\.zip"):
        import_archive(copy, tmp_path / "elsewhere")


def test_a_folder_that_resembles_a_task_is_mentioned(
    copy: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vtab_tree(copy, tasks=["oxford_iiit_pet"], folders={"oxford_iiit_pet": "oxford_pets"})
    assert import_archive(copy, target) == list(TASKS)
    note = f"note: {copy / 'oxford_pets'} was not imported; if it is the task oxford_iiit_pet, rename it"
    assert note in capsys.readouterr().err
    zipped(copy, copy.parent / "a.zip")
    import_archive(copy.parent / "a.zip", target.with_name("second"))
    assert f"note: {copy.parent / 'a.zip'}/oxford_pets was not imported" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda copy: (copy / "dtd/test.txt").unlink(), r"dtd/test\.txt is missing"),
        (lambda copy: (copy / "dtd/test.txt").write_text("images/test/0.png x"), r"dtd/test\.txt, line 1"),
        (lambda copy: (copy / "dtd/images/test/000000.png").unlink(), r"images/test/000000\.png is missing"),
    ],
)
@pytest.mark.parametrize("archive", [False, True])
def test_a_broken_copy_is_refused_whole_and_by_name(
    copy: Path, target: Path, tmp_path: Path, damage: Callable[[Path], None], message: str, archive: bool
) -> None:
    damage(copy)
    source = zipped(copy, tmp_path / "vtab.zip") if archive else copy
    with pytest.raises(InputError, match=message) as caught:
        import_archive(source, target)
    assert str(source) in str(caught.value)
    assert ".import-" not in str(caught.value)
    assert str(caught.value).endswith("nothing was imported")
    assert left_in(target.parent) == []


@pytest.mark.parametrize("archive", [False, True])
def test_a_copy_with_two_labels_for_one_image_is_refused(
    copy: Path, target: Path, tmp_path: Path, archive: bool
) -> None:
    file = copy / "dtd/test.txt"
    file.write_text(file.read_text().replace("000001.png 1", "000000.png 1"))
    source = zipped(copy, tmp_path / "a.zip") if archive else copy
    with pytest.raises(InputError, match=r"1 image has more than one label .* such as images/test/000000\.png"):
        import_archive(source, target)
    assert left_in(target.parent) == []
