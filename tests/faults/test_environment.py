"""The disk fills up, the data vanish: one sentence for the user, and nothing half-written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shipbench.results.loading import load_results
from tests.faults.grids import Grid, differences, leftovers, make_grid, written

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leaving: int) -> Path:
    """Fill a file system until about ``leaving`` bytes are free."""
    filler = folder / "filler"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    filler.write_bytes(bytes(free - leaving))
    return filler


def test_a_disk_that_becomes_full(undisturbed: Grid, small: Path, tmp_path: Path) -> None:
    linked = tmp_path / "results"
    (small / "results").mkdir()
    linked.symlink_to(small / "results")
    # The log lies beside the link, on a disk with enough room.
    grid = replace(undisturbed, results=linked)
    filler = fill(small, leaving=220_000)
    assert grid.run() == 1
    said = grid.log.read_text()
    assert "cannot be written to any more (No space left on device)" in said
    assert "Traceback" not in said
    assert 1 <= len(written(grid.results)) < 4
    assert set(load_results(grid.results)["status"]) == {"done"}
    assert not [name for name in leftovers(grid.results) if not name.startswith("checkpoints/")]
    filler.unlink()
    assert grid.run() == 0, grid.log.read_text()
    assert differences(grid.results, undisturbed.results) == []


def test_a_disk_that_is_full_from_the_start(undisturbed: Grid, small: Path, tmp_path: Path) -> None:
    (small / "results").mkdir()
    fill(small, leaving=0)
    linked = tmp_path / "results"
    linked.symlink_to(small / "results")
    grid = replace(undisturbed, results=linked)
    assert grid.run() == 2
    assert "cannot be written to: No space left on device" in grid.log.read_text()


def test_data_that_vanish_under_a_grid(undisturbed: Grid, tmp_path: Path) -> None:
    grid = make_grid(tmp_path, results=tmp_path / "results", method="linear,vpt-deep,full", epochs=8)
    command = grid.start()
    command.wait_for("[1/3]")
    gone = grid.data.rename(tmp_path / "gone")
    assert command.wait() == 1
    said = grid.log.read_text()
    assert "FAILED: " in said
    assert str(grid.data) in said
    assert "Traceback" not in said
    assert leftovers(grid.results) == []
    frame = load_results(grid.results)
    assert "failed" in set(frame["status"])
    assert set(frame["data_fingerprint"]) == set(load_results(undisturbed.results)["data_fingerprint"])
    assert set(frame["backbone_sha256"]) == set(load_results(undisturbed.results)["backbone_sha256"])
    gone.rename(grid.data)
    assert replace(grid, options=("--retry-failed",)).run() == 0, grid.log.read_text()
    frame = load_results(grid.results)
    whole = load_results(undisturbed.results).set_index("run_id")
    assert list(frame["final_test_acc"]) == list(whole.loc[frame["run_id"], "final_test_acc"])


def test_a_loss_that_is_not_finite_leaves_no_checkpoint(undisturbed: Grid, tmp_path: Path) -> None:
    options = ("--set", "vpt-deep.optimizer=sgd", "--set", "vpt-deep.lr=1e30", "--set", "warmup_epochs=3")
    grid = replace(undisturbed, results=tmp_path / "r", method="vpt-deep,linear", options=options)
    assert grid.run() == 1
    frame = load_results(grid.results).set_index("method")
    assert frame.loc["linear", "status"] == "done"
    assert "in epoch" in frame.loc["vpt-deep", "error"]
    assert "optimizer=sgd, lr=1e+30, batch_size=4" in frame.loc["vpt-deep", "error"]
    assert leftovers(grid.results) == []
