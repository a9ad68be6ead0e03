"""Archives that are hostile, damaged or none leave nothing behind."""

from __future__ import annotations

import gzip
import io
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shipbench.data import fingerprint
from shipbench.data.acquisition.archives import Limits, open_tar, unpack
from shipbench.errors import InputError
from shipbench.tasks import get_task
from tests.data.archives import TASKS, import_archive, tarred, zipped
from tests.data.builders import encode, left_in


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
