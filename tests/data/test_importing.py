"""Importing: folders and archives of every kind are imported whole; hostile ones leave nothing behind."""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
import shutil
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shipbench.data import fingerprint
from shipbench.data.acquisition.archives import LIMITS, Limits, open_tar, unpack
from shipbench.data.acquisition.importing import import_archives
from shipbench.errors import InputError
from shipbench.tasks import get_task
from tests.data.builders import encode, left_in, vtab_tree

TASKS = ("cifar100", "dtd")


@pytest.fixture
def copy(tmp_path: Path, private_cache: Path) -> Path:
    """Write a copy of two tasks, one of them under its alias."""
    return vtab_tree(tmp_path / "copy", tasks=TASKS, folders={"cifar100": "cifar"})


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the folder to import into, which does not exist yet."""
    return tmp_path / "library" / "vtab-1k"


def zipped(folder: Path, file: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, prefix + path.relative_to(folder).as_posix())
    return file


def tarred(folder: Path, file: Path, mode: str, prefix: str = "") -> Path:
    with tarfile.open(file, mode) as archive:
        archive.add(folder, prefix or ".")
    return file


def import_archive(source: Path, target: Path, limits: Limits = LIMITS) -> list[str]:
    return import_archives([source], target, limits=limits)


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


def cut_in_two(copy: Path, folder: Path) -> list[Path]:
    """Zip a copy as Google Drive does: one folder spread over archives that share the names of its folders."""
    files = [path for path in sorted(copy.rglob("*")) if path.is_file()]
    parts = [folder / f"vtab-1k-20240101T000000Z-00{number}.zip" for number in (1, 2)]
    for part, members in zip(parts, (files[::2], files[1::2]), strict=True):
        with zipfile.ZipFile(part, "w") as archive:
            for path in members:
                archive.write(path, f"vtab-1k/{path.relative_to(copy).as_posix()}")
    return parts


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


def hostile_zip(file: Path, name: str, mode: int = 0, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        member = zipfile.ZipInfo("placeholder")
        member.filename = name
        member.external_attr = mode << 16
        archive.writestr(member, content)
    return file


def hostile_tar(file: Path, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Path:
    with tarfile.open(file, "w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        archive.addfile(member)
    return file


ESCAPES = [
    "../evil.txt",
    "/elsewhere/evil.txt",
    "dtd/../../evil.txt",
    "..\\evil.txt",
    "C:\\evil.txt",
    "\\\\host\\evil.txt",
    # Windows joins a name with a drive by starting over at that drive.
    "dtd/C:evil.txt",
]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("make", [hostile_zip, hostile_tar])
def test_members_that_escape_are_refused(tmp_path: Path, target: Path, make: Callable[..., Path], name: str) -> None:
    source = make(tmp_path / ("a.zip" if make is hostile_zip else "a.tar"), name)
    with pytest.raises(InputError, match="would be written outside"):
        import_archive(source, target)
    assert left_in(target.parent) == []
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("name", ["dtd/two\nlines.png", "dtd/\x1b[31m.png", "dtd/a\x00b.png"])
def test_names_with_control_characters_are_refused(tmp_path: Path, target: Path, name: str) -> None:
    with pytest.raises(InputError, match="control characters"):
        import_archive(hostile_zip(tmp_path / "a.zip", name), target)
    if "\x00" not in name:
        with pytest.raises(InputError, match="control characters"):
            import_archive(hostile_tar(tmp_path / "a.tar", name), target)


@pytest.mark.parametrize("make", [hostile_zip, hostile_tar])
def test_folders_that_are_too_deep_are_refused(tmp_path: Path, target: Path, make: Callable[..., Path]) -> None:
    source = make(tmp_path / ("a.zip" if make is hostile_zip else "a.tar"), f"dtd/{1500 * 'a/'}x.txt")
    with pytest.raises(InputError, match=r"a/a/\.\.\.' is more than 100 folders deep; unpack the archive yourself"):
        import_archive(source, target)
    assert left_in(target.parent) == []


@pytest.mark.parametrize(
    ("form", "member"),
    [
        (tarfile.PAX_FORMAT, {"name": "dtd/test.txt", "pax_headers": {"comment": "x" * (1 << 21)}}),
        (tarfile.GNU_FORMAT, {"name": f"dtd/{'x' * (1 << 21)}"}),
        (tarfile.GNU_FORMAT, {"name": "dtd/test.txt", "type": tarfile.SYMTYPE, "linkname": "x" * (1 << 21)}),
    ],
    ids=["extended", "name", "link"],
)
def test_headers_that_would_fill_the_memory_are_refused(
    tmp_path: Path, target: Path, form: int, member: dict[str, Any]
) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=form) as archive:
        header = tarfile.TarInfo()
        for name, value in member.items():
            setattr(header, name, value)
        archive.addfile(header)
    assert (tmp_path / "a.tar.gz").stat().st_size < 10_000
    with pytest.raises(InputError, match=r"is damaged or incomplete .*\(a header of 20\d{5} bytes\)"):
        import_archive(tmp_path / "a.tar.gz", target)


def sparse_header(size: int, extended: bool) -> bytearray:
    """Return the header of a sparse file of GNU tar; ``extended`` says that blocks with its map follow."""
    block = bytearray(tarfile.TarInfo("dtd/test.txt").tobuf(tarfile.GNU_FORMAT))
    block[156:157], block[124:136], block[482] = tarfile.GNUTYPE_SPARSE, b"%011o\0" % size, extended
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return block


def gnu_sparse() -> bytes:
    """Return a sparse file whose map has a million places, 21 to a block."""
    return bytes(sparse_header(0, extended=True)) + (b"0" * 504 + b"\1" + bytes(7)) * (1_000_000 // 21)


def pax_sparse() -> bytes:
    """Return a sparse file whose map is a million lines of its content."""
    numbers = b"2000000\n" + b"0\n" * 4_000_000
    member = tarfile.TarInfo("dtd/test.txt")
    member.size = len(numbers)
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "0"}
    return member.tobuf(tarfile.PAX_FORMAT) + numbers + bytes(-len(numbers) % 512)


def long_names() -> bytes:
    """Return a thousand long names for one member."""
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 5
    return (name.tobuf(tarfile.GNU_FORMAT) + b"name".ljust(512, b"\0")) * 1000


def global_facts() -> bytes:
    """Return eight members, each after a header with half a megabyte of facts about all that follow."""
    parts = (
        tarfile.TarInfo.create_pax_global_header({f"fact{number}": "x" * 500_000})
        + tarfile.TarInfo(f"dtd/{number}.txt").tobuf(tarfile.GNU_FORMAT)
        for number in range(8)
    )
    return b"".join(parts)


@pytest.mark.parametrize("make", [gnu_sparse, pax_sparse, long_names, global_facts])
def test_maps_and_facts_that_would_fill_the_memory_are_refused(
    tmp_path: Path, target: Path, make: Callable[[], bytes]
) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(make(), 1))
    with pytest.raises(
        InputError, match=r"is damaged or incomplete .*\((a header|headers) (of 1\d{6} bytes|upon headers)\)"
    ):
        import_archive(tmp_path / "a.tar.gz", target)


def test_a_sparse_file_is_unpacked_and_members_are_not_kept(tmp_path: Path) -> None:
    packed, unpacked = tmp_path / "a.tar", tmp_path / "unpacked"
    packed.write_bytes(bytes(sparse_header(0, extended=False)) + bytes(1024))
    unpacked.mkdir()
    unpack(packed, unpacked)
    assert (unpacked / "dtd/test.txt").read_bytes() == b""
    with tarfile.open(packed, "w") as archive:
        for number in range(5):
            archive.addfile(tarfile.TarInfo(f"{number}.txt"))
    with open_tar(packed) as archive:
        assert [(member.name, len(archive.members) <= 1) for member in archive] == [
            (f"{n}.txt", True) for n in range(5)
        ]


@pytest.mark.parametrize("mode", [stat.S_IFCHR, stat.S_IFIFO])
def test_zip_devices_are_refused(tmp_path: Path, target: Path, mode: int) -> None:
    with pytest.raises(InputError, match="is a device or a pipe; unpack the archive yourself, remove it, and import"):
        import_archive(hostile_zip(tmp_path / "a.zip", "dtd/test.txt", mode, b"/etc/passwd"), target)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_tar_devices_are_refused(tmp_path: Path, target: Path, kind: bytes) -> None:
    with pytest.raises(InputError, match="is a device or a pipe; unpack the archive yourself, remove it, and import"):
        import_archive(hostile_tar(tmp_path / "a.tar", "dtd/test.txt", kind, "/etc/passwd"), target)


REFUSED_LINKS = [
    ("/etc/passwd", "out of the archive"),
    ("..\\..\\outside.txt", "out of the archive"),
    ("../../outside.txt", "out of the archive"),
    ("C:\\outside.txt", "out of the archive"),
    ("images/C:outside.txt", "out of the archive"),
    ("train800.txt", "to dtd/train800.txt, which the archive lacks"),
    ("test.txt", "in a circle or through more than 40 others"),
    (".", "to a folder that holds it"),
    ("..", "to a folder that holds it"),
]


@pytest.mark.parametrize(("link", "fault"), REFUSED_LINKS)
def test_links_that_lead_nowhere_in_the_archive_are_refused(
    tmp_path: Path, target: Path, link: str, fault: str
) -> None:
    words = f"'dtd/test.txt' is a link {fault}; unpack the archive yourself, replace the link with a file or remove it"
    for source in (
        hostile_zip(tmp_path / "a.zip", "dtd/test.txt", stat.S_IFLNK | 0o777, link.encode()),
        hostile_tar(tmp_path / "a.tar", "dtd/test.txt", tarfile.SYMTYPE, link),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            import_archive(source, target)
    assert left_in(target.parent) == []


@pytest.mark.parametrize("link", ["/etc/passwd", "../etc/passwd", "dtd/train800.txt", "dtd/test.txt"])
def test_hard_links_that_lead_nowhere_in_the_archive_are_refused(tmp_path: Path, target: Path, link: str) -> None:
    with pytest.raises(InputError, match=r"'dtd/test\.txt' is a link .*; unpack the archive yourself"):
        import_archive(hostile_tar(tmp_path / "a.tar", "dtd/test.txt", tarfile.LNKTYPE, link), target)


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


def test_zips_with_backslashes_are_unpacked(copy: Path, target: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in sorted(copy.rglob("*")):
            member = zipfile.ZipInfo("placeholder")
            member.filename = str(path.relative_to(copy)).replace("/", "\\") + "\\" * path.is_dir()
            archive.writestr(member, b"" if path.is_dir() else path.read_bytes())
    assert import_archive(tmp_path / "a.zip", target) == list(TASKS)
    assert fingerprint(get_task("dtd"), target) == fingerprint(get_task("dtd"), copy)


def test_a_link_planted_before_a_file_is_not_followed(tmp_path: Path, target: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("dtd")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        archive.addfile(link)
        file = tarfile.TarInfo("dtd/evil.txt")
        file.size = 4
        archive.addfile(file, io.BytesIO(b"evil"))
    with pytest.raises(InputError, match="is a link out of the archive"):
        import_archive(tmp_path / "a.tar", target)
    assert left_in(outside) == []


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


def test_an_encrypted_zip_is_refused(tmp_path: Path, target: Path) -> None:
    source = hostile_zip(tmp_path / "a.zip", "dtd/test.txt")
    data = bytearray(source.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    source.write_bytes(data)
    with pytest.raises(InputError, match="is encrypted"):
        import_archive(source, target)


def test_a_repeated_member_is_refused(tmp_path: Path, target: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("dtd/test.txt"))
    with pytest.raises(InputError, match=r"'dtd/test\.txt' exists twice; unpack the archive yourself, keep one of"):
        import_archive(tmp_path / "a.tar", target)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bombs_stop_at_the_ratio(tmp_path: Path, target: Path, kind: str) -> None:
    zeros = tmp_path / "zeros" / "dtd"
    zeros.mkdir(parents=True)
    (zeros / "test.txt").write_bytes(bytes(2_000_000))
    pack = zipped if kind == "zip" else lambda folder, file: tarred(folder, file, "w:gz")
    source = pack(tmp_path / "zeros", tmp_path / f"a.{kind}")
    assert source.stat().st_size * 100 < 2_000_000
    with pytest.raises(InputError, match="unpacks to more than"):
        import_archive(source, target, limits=Limits(free_bytes=1000))
    assert left_in(target.parent) == []


def test_size_and_members_have_limits(copy: Path, target: Path, tmp_path: Path) -> None:
    source = zipped(copy, tmp_path / "a.zip")
    with pytest.raises(InputError, match="unpacks to more than 5000 bytes"):
        import_archive(source, target, limits=Limits(total_bytes=5000))
    with pytest.raises(InputError, match="more than 20 members"):
        import_archive(source, target, limits=Limits(members=20))
    with pytest.raises(InputError, match="more than 20 members"):
        import_archive(copy, target, limits=Limits(members=20))
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        for number in range(21):
            link = tarfile.TarInfo(f"dtd/{number}")
            link.type, link.linkname = tarfile.SYMTYPE, "nowhere"
            archive.addfile(link)
    with pytest.raises(InputError, match="more than 20 members"):
        import_archive(tmp_path / "links.tar", target, limits=Limits(members=20))
    assert left_in(target.parent) == []


@pytest.mark.parametrize(("name", "mode"), [("a.zip", ""), ("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")])
@pytest.mark.parametrize("kept", [0.6, 0.0])
def test_cut_archives_are_refused(copy: Path, target: Path, tmp_path: Path, name: str, mode: str, kept: float) -> None:
    source = tarred(copy, tmp_path / name, mode) if mode else zipped(copy, tmp_path / name)
    source.write_bytes(source.read_bytes()[: int(source.stat().st_size * kept)])
    with pytest.raises(InputError, match=str(source)):
        import_archive(source, target)
    assert left_in(target.parent) == []


def test_a_zip_with_damaged_contents_is_refused(tmp_path: Path, target: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    source = hostile_zip(tmp_path / "a.zip", "dtd/0.png", content=encode(noise))
    data = bytearray(source.read_bytes())
    data[len(data) // 2] ^= 0xFF
    source.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        import_archive(source, target)


def test_other_files_and_missing_sources_are_refused(tmp_path: Path, target: Path) -> None:
    (tmp_path / "notes.rar").write_bytes(b"Rar!")
    with pytest.raises(InputError, match="neither a folder nor an archive"):
        import_archive(tmp_path / "notes.rar", target)
    with pytest.raises(InputError, match="does not exist"):
        import_archive(tmp_path / "nowhere.zip", target)
    with pytest.raises(InputError, match="holds no VTAB-1k task"):
        import_archive(hostile_zip(tmp_path / "a.zip", "readme.txt"), target)
    assert left_in(target.parent) == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.zip", b"", "is empty; get the file again"),
        ("a.zip", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        ("a.tar.gz", b"<!DOCTYPE html><html>Google Drive - Virus scan warning", "is a web page"),
        ("a.tar", bytes(100), "holds nothing but zero bytes"),
        ("a.zip", b"PK\x03\x04", "is damaged or incomplete"),
        ("a.zip.001", b"PK\x03\x04", "is one piece of a split archive; join the pieces"),
        ("a.z01", b"PK\x03\x04", "is one piece of a split archive; join the pieces"),
        ("a.tar.gz.aa", b"\x1f\x8b", "is one piece of a split archive; join the pieces"),
    ],
)
def test_files_that_are_no_archive_are_told_apart(
    tmp_path: Path, target: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        import_archive(tmp_path / name, target)
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
