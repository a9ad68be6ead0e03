"""Importing: folders and archives of every kind are imported whole; hostile ones leave nothing behind."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shipbench.data import fingerprint
from shipbench.data.acquisition.archives import Limits
from shipbench.data.acquisition.importing import import_archive, import_archives
from shipbench.errors import InputError
from shipbench.tasks import get_task
from tests.data.builders import encode, vtab_tree

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


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


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
    with pytest.raises(InputError, match="repeats the task dtd"):
        import_archives([*parts, parts[1]], target)
    assert not target.exists()
    assert import_archives(parts, target) == list(TASKS)


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


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFCHR, stat.S_IFIFO])
def test_zip_links_and_devices_are_refused(tmp_path: Path, target: Path, mode: int) -> None:
    with pytest.raises(InputError, match="is a link or a device"):
        import_archive(hostile_zip(tmp_path / "a.zip", "dtd/test.txt", mode, b"/etc/passwd"), target)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_tar_links_and_devices_are_refused(tmp_path: Path, target: Path, kind: bytes) -> None:
    with pytest.raises(InputError, match="is a link or a device"):
        import_archive(hostile_tar(tmp_path / "a.tar", "dtd/test.txt", kind, "/etc/passwd"), target)


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
    with pytest.raises(InputError, match="is a link or a device"):
        import_archive(tmp_path / "a.tar", target)
    assert left_in(outside) == []


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/passwd"), os.mkfifo])
def test_links_and_devices_in_a_folder_are_refused(copy: Path, target: Path, make: Callable[[Path], None]) -> None:
    make(copy / "dtd" / "extra")
    with pytest.raises(InputError, match="is a link or a device"):
        import_archive(copy, target)
    assert left_in(target.parent) == []


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
    with pytest.raises(InputError, match="exists"):
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
