"""Identities of image files: what they are, when a file is hashed again, and what an interrupted command leaves."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest

from shipbench.data import identities
from shipbench.data.identities import TICK_NS, content_of, identify_contained, identify_files
from shipbench.data.images import ImageIdentity
from shipbench.errors import InputError
from tests.data.builders import disk_is_full, encode

NAMES = [f"{label}/{index}.png" for label in ("ant", "bee") for index in range(3)]


@pytest.fixture
def folder(tmp_path: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images, whose identities are remembered although the files are new."""
    monkeypatch.setattr(identities, "TICK_NS", -(10**12))
    for number, name in enumerate(NAMES):
        write(tmp_path / "own" / name, number)
    return tmp_path / "own"


def write(file: Path, grey: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encode(np.full((4, 4, 3), grey, np.uint8)))


def watch_reading(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    def read(file: Path) -> bytes:
        names.append(file.name)
        return file.read_bytes()

    monkeypatch.setattr(identities, "read_bytes", read)
    return names


def test_an_identity_is_the_hash_and_the_kind_of_a_file(folder: Path) -> None:
    identified = identify_files(folder, NAMES, "own")
    assert list(identified) == NAMES
    for name in NAMES:
        assert identified[name].sha256 == hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert identified[name].kind == "png"


def test_a_full_cache_disk_only_makes_the_next_command_hash_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = identify_files(folder, NAMES[:1], "own")
    with monkeypatch.context() as full:
        full.setattr(identities, "atomic_path", disk_is_full)
        assert identify_files(folder, NAMES, "own").keys() == set(NAMES)
    names = watch_reading(monkeypatch)
    assert identify_files(folder, NAMES, "own") == first | identify_files(folder, NAMES[1:], "own")
    assert sorted(names) == sorted(Path(name).name for name in NAMES[1:])


def test_only_new_and_changed_files_are_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = identify_files(folder, NAMES[:-1], "own")
    names = watch_reading(monkeypatch)
    assert identify_files(folder, NAMES[:-1], "own") == first
    assert names == []
    identify_files(folder, NAMES, "own")
    assert names == ["2.png"]
    write(folder / NAMES[0], 99)
    again = identify_files(folder, NAMES, "own")
    assert names == ["2.png", "0.png"]
    assert again[NAMES[0]] != first[NAMES[0]]
    assert again[NAMES[1]] == first[NAMES[1]]


def test_a_replaced_file_of_the_same_size_and_time_is_read_again(folder: Path) -> None:
    before = identify_files(folder, NAMES, "own")[NAMES[0]]
    file, times = folder / NAMES[0], (folder / NAMES[0]).stat()
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    replacement = file.with_suffix(".new")
    replacement.write_bytes(data)
    os.utime(replacement, ns=(times.st_atime_ns, times.st_mtime_ns))
    replacement.replace(file)
    assert identify_files(folder, NAMES, "own")[NAMES[0]] != before


def test_files_too_young_for_their_times_to_tell_are_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "TICK_NS", 3600 * 10**9)
    names = watch_reading(monkeypatch)
    for _ in range(2):
        identify_files(folder, NAMES, "own")
    assert len(names) == 2 * len(NAMES)


def test_a_file_system_that_counts_seconds_does_not_hide_a_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT counts every other second, Lustre whole ones: a file a second old may yet change and keep its times."""
    monkeypatch.setattr(identities, "TICK_NS", TICK_NS)
    newest = max(max((folder / name).stat().st_mtime_ns, (folder / name).stat().st_ctime_ns) for name in NAMES)
    names = watch_reading(monkeypatch)
    for seconds, reads in ((1, 6), (1, 12), (3, 18), (3, 18)):
        monkeypatch.setattr(time, "time_ns", lambda seconds=seconds: newest + seconds * 10**9)
        identify_files(folder, NAMES, "own")
        assert len(names) == reads


def test_images_in_a_container_too_young_for_its_times_to_tell_are_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container, read = folder / NAMES[0], list[str]()

    def identify(path: str) -> ImageIdentity:
        read.append(path)
        return ImageIdentity("0" * 64, "array")

    for tick, reads in ((3600 * 10**9, 2), (3600 * 10**9, 4), (-(10**12), 6), (-(10**12), 6)):
        monkeypatch.setattr(identities, "TICK_NS", tick)
        identify_contained(["a", "b"], [str(container)], identify, "own")
        assert len(read) == reads


def test_images_in_a_container_are_not_read_again_from_another_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[str]()

    def identify(path: str) -> ImageIdentity:
        read.append(path)
        return ImageIdentity("0" * 64, "array")

    for place in (folder, folder.parent):
        monkeypatch.chdir(place)
        identify_contained(["a", "b"], [str(folder / NAMES[0])], identify, "own")
    assert read == ["a", "b"]


def test_a_damaged_memory_is_not_believed(folder: Path, private_cache: Path) -> None:
    first = identify_files(folder, NAMES, "own")
    (memo,) = (private_cache / "fingerprints").iterdir()
    text = memo.read_text()
    for damaged in (text.replace("png", "bmp"), text[:-5], "", "[]", text.replace(first[NAMES[0]].sha256, "0" * 64)):
        memo.write_text(damaged)
        assert identify_files(folder, NAMES, "own") == first


def test_an_interrupted_command_has_hashed_for_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember = identities._remember

    def remember_and_stop(*arguments: object) -> None:
        remember(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(identities, "_BLOCK", 2)
    monkeypatch.setattr(identities, "_remember", remember_and_stop)
    with pytest.raises(KeyboardInterrupt):
        identify_files(folder, NAMES, "own")
    monkeypatch.setattr(identities, "_remember", remember)
    names = watch_reading(monkeypatch)
    identify_files(folder, NAMES, "own")
    assert sorted(names) == ["0.png", "1.png", "2.png", "2.png"]


def test_a_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=rf"cannot read {folder}/ant/9\.png"):
        identify_files(folder, [*NAMES, "ant/9.png"], "own")


def test_the_content_of_a_split_depends_on_its_images_and_their_order(folder: Path) -> None:
    images = list(identify_files(folder, NAMES, "own").values())
    assert content_of(images, upright=True) == content_of(iter(images), upright=True)
    contents = [content_of(order, upright=True) for order in (images, images[::-1], images[1:])]
    assert len({*contents, content_of(images, upright=False)}) == 4
