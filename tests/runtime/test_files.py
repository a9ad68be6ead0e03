"""Files: written atomically, hashed in pieces."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from pathlib import Path

import pytest

from shipbench.runtime.files import atomic_path, file_sha256


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    def write_half() -> None:
        with atomic_path(tmp_path / "kept.txt") as temporary:
            temporary.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_half()
    assert not list(tmp_path.iterdir())


def test_a_replaced_file_is_the_old_one_until_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "kept.txt"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_a_file_has_the_permissions_of_any_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            # Other threads would make files that all users may write.
            patch.delattr(os, "umask")
            with atomic_path(tmp_path / "file") as temporary:
                temporary.write_text("content")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    content = bytes(i % 251 for i in range(size))
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
