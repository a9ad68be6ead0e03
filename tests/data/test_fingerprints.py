"""The fingerprint: its definition, what it depends on, and when it is stored."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from shipbench.data import fingerprint, identities
from shipbench.data.vtab import fingerprints
from shipbench.errors import InputError
from shipbench.tasks import get_task
from tests.data.builders import disk_is_full, encode, vtab_tree

DTD = get_task("dtd")
FIRST = Path("dtd/images/test/000000.png")
OTHER = encode(np.full((10, 12, 3), 9, np.uint8))


def by_definition(folder: Path, roles: tuple[str, ...] = ("train800", "val200", "test")) -> str:
    digest = hashlib.sha256()
    for role in roles:
        for line in (folder / f"{role}.txt").read_text().splitlines():
            path, label = line.split(" ")
            image = hashlib.sha256((folder / path).read_bytes()).hexdigest()
            digest.update("\0".join([role, path, label, image]).encode() + b"\n")
    return digest.hexdigest()


def store_fresh_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Store the fingerprint of a fresh copy as if it were an old one."""
    monkeypatch.setattr(fingerprints, "TICK_NS", 0)


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> bytes:
        raise AssertionError(f"read {path}")

    monkeypatch.setattr(fingerprints, "read_bytes", fail)


def move_the_last_of_train800_to_val200(folder: Path) -> None:
    train, val = ((folder / f"{role}.txt").read_text().splitlines(keepends=True) for role in ("train800", "val200"))
    (folder / "train800.txt").write_text("".join(train[:-1]))
    (folder / "val200.txt").write_text("".join([train[-1], *val]))


def test_follows_its_definition(dtd: Path) -> None:
    assert fingerprint(DTD, dtd) == by_definition(dtd / "dtd")


def test_a_full_cache_disk_only_makes_the_next_command_hash_again(dtd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_fresh_copies(monkeypatch)
    monkeypatch.setattr(identities, "atomic_path", disk_is_full)
    assert [fingerprint(DTD, dtd) for _ in range(2)] == [by_definition(dtd / "dtd")] * 2


def test_without_test_it_covers_the_1000_and_opens_no_test_file(dtd: Path) -> None:
    expected = by_definition(dtd / "dtd", ("train800", "val200"))
    (dtd / "dtd" / "test.txt").unlink()
    shutil.rmtree(dtd / "dtd" / "images" / "test")
    assert fingerprint(DTD, dtd, ("train800", "val200")) == expected
    with pytest.raises(InputError, match=r"test\.txt is missing"):
        fingerprint(DTD, dtd)


def test_does_not_depend_on_location_alias_or_line_endings(tmp_path: Path, private_cache: Path) -> None:
    task = get_task("cifar100")
    first = vtab_tree(tmp_path / "a", tasks=["cifar100"])
    second = vtab_tree(tmp_path / "b" / "vtab-1k", tasks=["cifar100"], folders={"cifar100": "cifar"}).parent
    for file in second.glob("vtab-1k/cifar/*.txt"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert fingerprint(task, first) == fingerprint(task, second)


def test_does_not_depend_on_unlisted_images(dtd: Path) -> None:
    before = fingerprint(DTD, dtd)
    (dtd / "dtd/images/test/unlisted.png").write_bytes(OTHER)
    (dtd / "dtd/train800val200.txt").unlink()
    assert fingerprint(DTD, dtd) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / FIRST).write_bytes(OTHER),
        lambda root: (root / "dtd/test.txt").write_text((root / "dtd/test.txt").read_text().replace("png 5", "png 6")),
        lambda root: (root / "dtd/test.txt").write_text("images/test/000000.png 0\n"),
        lambda root: (root / "dtd/images/val200/000000.png").write_bytes(OTHER),
        lambda root: move_the_last_of_train800_to_val200(root / "dtd"),
    ],
)
def test_changes_with_images_and_labels(dtd: Path, monkeypatch: pytest.MonkeyPatch, change: object) -> None:
    store_fresh_copies(monkeypatch)
    before = fingerprint(DTD, dtd)
    change(dtd)  # type: ignore[operator]
    assert fingerprint(DTD, dtd) != before


def test_is_stored_and_recalled_without_reading_an_image(dtd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_fresh_copies(monkeypatch)
    first = fingerprint(DTD, dtd)
    forbid_reading(monkeypatch)
    assert fingerprint(DTD, dtd) == first


def test_a_replaced_file_of_the_same_size_and_time_is_noticed(dtd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_fresh_copies(monkeypatch)
    before = fingerprint(DTD, dtd)
    image = dtd / FIRST
    data, times = bytearray(image.read_bytes()), image.stat()
    data[-20] ^= 1
    fresh = image.with_suffix(".new")
    fresh.write_bytes(data)
    os.utime(fresh, ns=(times.st_atime_ns, times.st_mtime_ns))
    fresh.replace(image)
    assert image.stat().st_size == times.st_size
    assert image.stat().st_mtime_ns == times.st_mtime_ns
    assert fingerprint(DTD, dtd) != before


def test_the_fingerprint_of_a_fresh_copy_is_not_stored(
    dtd: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "TICK_NS", 3600 * 10**9)
    first = fingerprint(DTD, dtd)
    assert not list((private_cache / "fingerprints").iterdir())
    assert fingerprint(DTD, dtd) == first


def test_the_fingerprint_of_a_moved_copy_is_recalled(
    dtd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_fresh_copies(monkeypatch)
    first = fingerprint(DTD, dtd)
    forbid_reading(monkeypatch)
    assert fingerprint(DTD, dtd.rename(tmp_path / "moved")) == first


def test_a_damaged_memo_is_ignored(dtd: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_fresh_copies(monkeypatch)
    first = fingerprint(DTD, dtd)
    (memo,) = (private_cache / "fingerprints").glob("*.json")
    for damage in ("", "{}", '{"fingerprint": 1', '["a"]'):
        memo.write_text(damage)
        assert fingerprint(DTD, dtd) == first


def test_a_memo_with_one_bit_changed_is_ignored(
    dtd: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_fresh_copies(monkeypatch)
    first = fingerprint(DTD, dtd)
    (memo,) = (private_cache / "fingerprints").glob("*.json")
    whole = memo.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        memo.write_bytes(changed)
        assert fingerprint(DTD, dtd) == first, place


def test_two_copies_with_equal_names_sizes_and_times_differ(
    dtd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_fresh_copies(monkeypatch)
    twin = tmp_path / "twin"
    shutil.copytree(dtd, twin)
    data = bytearray((twin / FIRST).read_bytes())
    data[-20] ^= 1
    (twin / FIRST).write_bytes(data)
    for file in twin.rglob("*"):
        os.utime(file, ns=(0, (dtd / file.relative_to(twin)).stat().st_mtime_ns))
    assert fingerprint(DTD, dtd) != fingerprint(DTD, twin)


def test_a_missing_image_is_refused_by_name(dtd: Path) -> None:
    (dtd / FIRST).unlink()
    with pytest.raises(InputError, match=r"images/test/000000\.png is missing; .*: shipbench data verify ") as caught:
        fingerprint(DTD, dtd)
    assert str(caught.value).endswith(f" {dtd}")
