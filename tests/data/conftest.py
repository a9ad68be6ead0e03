"""Fixtures of the data tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.builders import vtab_tree


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test an image cache of its own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SHIPBENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def dtd(tmp_path: Path, private_cache: Path) -> Path:
    """Write a copy that holds one task, dtd: 8 + 2 training and 6 test images of 12 x 10 pixels."""
    return vtab_tree(tmp_path / "vtab", tasks=["dtd"])


@pytest.fixture(scope="session")
def full_size_kitti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a copy of kitti with the catalogue's numbers of (tiny) images; tests must not change it."""
    return vtab_tree(tmp_path_factory.mktemp("kitti"), tasks=["kitti"], n_train=1000, n_test=711, size=(4, 3))
