"""Fixtures of the data tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.archives import TASKS
from tests.data.builders import vtab_tree


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set an empty cache folder for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SHIPBENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def dtd(tmp_path: Path, private_cache: Path) -> Path:
    """Write a copy of dtd alone: 8 + 2 training and 6 test images of 12 x 10 pixels."""
    return vtab_tree(tmp_path / "vtab", tasks=["dtd"])


@pytest.fixture(scope="session")
def full_size_kitti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a copy of kitti with as many images as the catalogue lists, all tiny; tests must not change it."""
    return vtab_tree(tmp_path_factory.mktemp("kitti"), tasks=["kitti"], n_train=1000, n_test=711, size=(4, 3))


@pytest.fixture
def copy(tmp_path: Path, private_cache: Path) -> Path:
    """Write a copy of two tasks, one of them under its alias."""
    return vtab_tree(tmp_path / "copy", tasks=TASKS, folders={"cifar100": "cifar"})


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the folder to import into, which does not exist yet."""
    return tmp_path / "library" / "vtab-1k"
