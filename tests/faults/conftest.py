"""Fixtures of the fault tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from tests.faults.grids import Grid, grid_in, make_grid


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """A grid executed without a fault; disturbed grids share its data and cache and are compared with it.

    One of several processes of tests executes it. The others get copies, since tests damage its files for a while.
    """
    folder = tmp_path_factory.mktemp("grid")
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _executed(folder)
    shared = tmp_path_factory.getbasetemp().parent / "undisturbed"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            grid = _executed(folder)
            # Only a whole copy has the name that the other processes look for.
            part = shared.with_suffix(".part")
            shutil.copytree(folder, part)
            part.rename(shared)
            return grid
    shutil.copytree(shared, folder, dirs_exist_ok=True)
    return grid_in(folder)


def _executed(folder: Path) -> Grid:
    grid = make_grid(folder)
    assert grid.run() == 0, grid.said
    return grid
