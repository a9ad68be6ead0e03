"""Images for whole runs of methods."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.builders import vtab_tree


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vtab_tree(tmp_path_factory.mktemp("data"), tasks=("dtd",))
