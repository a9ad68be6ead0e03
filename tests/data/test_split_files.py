"""The split-file parser: the lines it accepts, and the message for every other."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipbench.data.types import Entry
from shipbench.data.vtab.split_files import parse_split, read_split
from shipbench.errors import InputError

_NAMES = st.text(st.characters(blacklist_categories=("Cc", "Cs"), blacklist_characters="/\\:"), min_size=1, max_size=12)
_PARTS = _NAMES.filter(lambda name: name.strip(" \t") == name and name not in (".", ".."))
PATHS = st.lists(_PARTS, min_size=1, max_size=4).map("/".join).filter(lambda path: not path.startswith("\ufeff"))
LINES = st.lists(st.tuples(PATHS, st.integers(0, 396)), min_size=1, max_size=20)
ENDS = st.sampled_from(["\n", "\r\n"])


def one_fault(line: str, num_classes: int = 10) -> str:
    split = parse_split(f"images/test/0.png 1\n{line}\n".encode(), num_classes)
    assert [entry.label for entry in split.entries] == [1]
    (fault,) = split.faults
    assert fault.line == 2
    return fault.message


@given(LINES, ENDS, st.booleans())
def test_reads_back_what_was_written(lines: list[tuple[str, int]], end: str, ended: bool) -> None:
    text = end.join(f"{path} {label}" for path, label in lines) + (end if ended else "")
    split = parse_split(text.encode(), 397)
    assert split.faults == ()
    assert split.entries == tuple(Entry(path, label) for path, label in lines)


@given(LINES)
def test_line_endings_and_blanks_do_not_matter(lines: list[tuple[str, int]]) -> None:
    unix = "".join(f"{path} {label}\n" for path, label in lines)
    other = "\ufeff" + "".join(f"  {path} \t{label}  \r\n\r\n" for path, label in lines)
    assert parse_split(unix.encode(), 397).entries == parse_split(other.encode(), 397).entries


@given(st.binary(max_size=200), st.integers(1, 20))
def test_any_bytes_yield_safe_entries_or_faults(content: bytes, num_classes: int) -> None:
    split = parse_split(content, num_classes)
    assert split.entries or split.faults
    for entry in split.entries:
        assert 0 <= entry.label < num_classes
        assert not entry.path.startswith("/")
        assert not {"", ".", ".."} & set(entry.path.split("/"))
        assert "\n" not in entry.path


@pytest.mark.parametrize("line", ["a" * 5000, "a.png " + "9" * 5000, "../" + "a" * 5000 + " 1"])
def test_the_message_for_an_endless_line_is_short(line: str) -> None:
    assert len(one_fault(line)) < 250


@given(LINES, st.integers(0, 396))
def test_every_label_out_of_range_is_a_fault(lines: list[tuple[str, int]], highest: int) -> None:
    text = "".join(f"{path} {label}\n" for path, label in lines)
    split = parse_split(text.encode(), highest + 1)
    assert [fault.line for fault in split.faults] == [i for i, (_, k) in enumerate(lines, start=1) if k > highest]


def test_windows_line_endings_are_noticed() -> None:
    assert parse_split(b"a.png 1\r\nb.png 2\r\n", 3).windows_line_endings
    assert not parse_split(b"a.png 1\nb.png 2\n", 3).windows_line_endings


def test_backslashes_and_dots_are_normalised() -> None:
    assert parse_split(b".\\images\\test//0.png 2", 3).entries == (Entry("images/test/0.png", 2),)


def test_a_path_keeps_its_spaces() -> None:
    assert parse_split(b"images/test/a  b c.png 2", 3).entries == (Entry("images/test/a  b c.png", 2),)


@pytest.mark.parametrize("label", ["10", "-1", "1.0", "seven", "+1", "٣", "1_0", "9" * 5000])
def test_refuses_labels_that_are_not_classes(label: str) -> None:
    assert label[:20] in one_fault(f"images/test/1.png {label}")


@pytest.mark.parametrize("path", ["/etc/passwd", "C:/data/0.png", "c:\\data\\0.png", "\\\\server\\share\\0.png"])
def test_refuses_absolute_paths(path: str) -> None:
    assert "is absolute" in one_fault(f"{path} 1")


@pytest.mark.parametrize("path", ["../0.png", "images/../../0.png", "images\\..\\0.png", ".."])
def test_refuses_paths_that_leave_the_folder(path: str) -> None:
    assert "leaves the task folder" in one_fault(f"{path} 1")


@pytest.mark.parametrize("line", ["images/test/1.png", "7", "images/\x00.png 1", "images/a\rb.png 1", "./. 1"])
def test_refuses_lines_without_a_file_name_or_label(line: str) -> None:
    assert one_fault(line)


@pytest.mark.parametrize("content", [b"", b"\n\n", b" \r\n", b"\xef\xbb\xbf"])
def test_refuses_empty_files(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "test.txt"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"test\.txt is empty"):
        read_split(file, 10)


def test_refuses_text_in_another_encoding() -> None:
    assert (
        parse_split("images/é.png 1\n".encode("latin-1"), 3).faults[0].message == "is not UTF-8 text; save it as UTF-8"
    )
    assert (
        parse_split("images/0.png 1\n".encode("utf-16"), 3).faults[0].message == "is not UTF-8 text; save it as UTF-8"
    )


def test_a_git_lfs_pointer_is_named() -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12000\n"
    (fault,) = parse_split(pointer, 3).faults
    assert fault.message.startswith("is a Git LFS pointer, not the file itself; fetch the content with 'git lfs pull'")


def test_the_error_names_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "val200.txt"
    file.write_text("images/val200/0.png 1\nimages/val200/1.png 47\n")
    with pytest.raises(InputError, match=r"val200\.txt, line 2: the label 47 is out of range; .* 0 to 46"):
        read_split(file, 47)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*test\.txt"):
        read_split(tmp_path / "test.txt", 10)
