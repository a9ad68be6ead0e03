"""Fixtures of the fault tests."""

from __future__ import annotations

import pytest

from tests.faults.grids import Grid, make_grid


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """A grid executed without a fault; disturbed grids share its data and cache and are compared with it."""
    grid = make_grid(tmp_path_factory.mktemp("grid"))
    assert grid.run() == 0, grid.said
    return grid
