"""Importing: symbolic links in folders and archives, and what cannot be copied."""

from __future__ import annotations

import os
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from shipbench.data import fingerprint
from shipbench.errors import InputError
from shipbench.tasks import get_task
from tests.data.archives import TASKS, import_archive, tarred
from tests.data.builders import left_in


def linked(copy: Path) -> Path:
    """Replace files and folders of a copy by links to others of the same copy."""
    (copy / "dtd/images/test/000001.png").rename(copy / "dtd/real.png")
    (copy / "dtd/images/test/000001.png").symlink_to("../../alias.png")
    (copy / "dtd/alias.png").symlink_to("images/../real.png")
    (copy / "dtd/images/test/000002.png").unlink()
    os.link(copy / "dtd/images/test/000003.png", copy / "dtd/images/test/000002.png")
    (copy / "cifar/images/val200").rename(copy / "pictures")
    (copy / "cifar/images/val200").symlink_to("../../pictures", target_is_directory=True)
    return copy


def with_symlinks(folder: Path, file: Path) -> Path:
    """Zip a folder as ``zip --symlinks`` does."""
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink():
                member = zipfile.ZipInfo(name)
                member.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(member, str(path.readlink()))
            elif path.is_file():
                archive.write(path, name)
    return file


@pytest.mark.parametrize(
    "pack",
    [
        lambda copy, to: copy,
        lambda copy, to: with_symlinks(copy, to / "a.zip"),
        lambda copy, to: tarred(copy, to / "a.tar", "w"),
        lambda copy, to: tarred(copy, to / "a.tar.gz", "w:gz", "vtab-1k"),
    ],
)
def test_links_within_a_source_are_copied(
    copy: Path, target: Path, tmp_path: Path, pack: Callable[[Path, Path], Path]
) -> None:
    source = pack(linked(copy), tmp_path)
    assert import_archive(source, target) == list(TASKS)
    assert not [path for path in target.rglob("*") if path.is_symlink()]
    for name in TASKS:
        assert fingerprint(get_task(name), target) == fingerprint(get_task(name), copy)


def test_links_within_linked_folders_are_copied(tmp_path: Path, target: Path, dtd: Path) -> None:
    (dtd / "dtd/images").rename(dtd / "elsewhere")
    (dtd / "elsewhere/test").rename(dtd / "tested")
    (dtd / "elsewhere/test").symlink_to("../tested")
    (dtd / "dtd/images").symlink_to("../elsewhere")
    assert import_archive(tarred(dtd, tmp_path / "a.tar", "w"), target) == ["dtd"]
    assert fingerprint(get_task("dtd"), target) == fingerprint(get_task("dtd"), dtd)


def test_links_that_hold_one_another_are_refused(tmp_path: Path, target: Path, dtd: Path) -> None:
    (dtd / "dtd/images/up").symlink_to("../../aside")
    (dtd / "aside").mkdir()
    (dtd / "aside/down").symlink_to("../dtd/images")
    for source in (tarred(dtd, tmp_path / "a.tar", "w"), dtd):
        with pytest.raises(InputError, match="is a link to a folder that holds it"):
            import_archive(source, target)
    assert left_in(target.parent) == []


def test_a_long_chain_of_linked_folders_is_refused(tmp_path: Path, target: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number in range(3000):
            link = tarfile.TarInfo(f"dtd/{number}/next")
            link.type, link.linkname = tarfile.SYMTYPE, f"../{number + 1}"
            archive.addfile(link)
    with pytest.raises(InputError, match="is a link in a circle or through more than 40 others"):
        import_archive(tmp_path / "a.tar", target)


def test_many_links_to_files_are_copied_fast(tmp_path: Path, target: Path, dtd: Path) -> None:
    tarred(dtd, tmp_path / "a.tar", "w")
    started = time.process_time()
    with tarfile.open(tmp_path / "a.tar", "a") as archive:
        for number in range(5000):
            link = tarfile.TarInfo(f"dtd/copies/{number}.png")
            link.type, link.linkname = tarfile.LNKTYPE, "dtd/images/test/000000.png"
            archive.addfile(link)
    assert import_archive(tmp_path / "a.tar", target) == ["dtd"]
    assert len(list((target / "dtd/copies").iterdir())) == 5000
    assert time.process_time() - started < 10


def test_links_out_of_the_users_folder_are_followed(copy: Path, target: Path, tmp_path: Path) -> None:
    before = fingerprint(get_task("dtd"), copy)
    disk = tmp_path / "disk"
    disk.mkdir()
    (copy / "dtd/images").rename(disk / "images")
    (copy / "dtd/images").symlink_to(disk / "images")
    (copy / "dtd/test.txt").rename(disk / "test.txt")
    (copy / "dtd/test.txt").symlink_to(disk / "test.txt")
    assert fingerprint(get_task("dtd"), copy) == before
    assert import_archive(copy, target) == list(TASKS)
    assert not (target / "dtd/images").is_symlink()
    assert fingerprint(get_task("dtd"), target) == before


@pytest.mark.parametrize(
    ("make", "nature"),
    [
        (os.mkfifo, "neither a file nor a folder"),
        (lambda path: path.symlink_to("nowhere"), "a link to a file that does not exist"),
        (lambda path: path.symlink_to("extra"), "a link to a file that does not exist"),
    ],
)
def test_what_cannot_be_copied_from_a_folder_is_named(
    copy: Path, target: Path, make: Callable[[Path], None], nature: str
) -> None:
    make(copy / "dtd" / "extra")
    with pytest.raises(InputError, match=f"{copy}/dtd/extra is {nature}; remove it"):
        import_archive(copy, target)
    assert left_in(target.parent) == []


def test_a_link_around_the_target_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "dtd/everything").symlink_to(tmp_path / "disk")
    with pytest.raises(InputError, match="holds the folder to import into"):
        import_archive(copy, tmp_path / "disk" / "vtab-1k")
    assert left_in(tmp_path / "disk") == []
