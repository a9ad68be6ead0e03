"""Grids that take seconds, executed by the real command line in processes that can be killed."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from shipbench.results.loading import load_history, load_predictions, load_results
from shipbench.results.store import Store
from tests.conftest import TIMES
from tests.data.builders import vtab_tree
from tests.faults.phases import keep_phase, read_phase
from tests.forks import command, start_fork

METHODS = "linear,ship,vpt-deep,full"


@dataclass(frozen=True)
class Grid:
    """The arguments of ``shipbench run``: data, cache and results folders, and options."""

    data: Path
    cache: Path
    results: Path
    method: str = METHODS
    epochs: int = 8
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    watched: bool = False
    """Whether the command keeps its current phase, for ``Started.phase``."""

    @property
    def arguments(self) -> list[str]:
        """The command line."""
        common = ["run", "--tasks", "dtd", "--backbone", "test_vit", "--checkpoint", "random", "--method", self.method]
        settings = ["--set", "image_size=64", "--set", "drop_path=0.2", "--set", "batch_size=4"]
        folders = ["--data", str(self.data), "--results", str(self.results), "--epochs", str(self.epochs)]
        return [*common, *settings, *folders, *self.options]

    @property
    def log(self) -> Path:
        """The file to which the command's output is appended."""
        return self.results.with_suffix(".log")

    @property
    def said(self) -> str:
        """The command's output so far."""
        return self.log.read_text() if self.log.exists() else ""

    @property
    def all_environment(self) -> dict[str, str]:
        """The command's environment variables: its cache folder, and a checkpoint after every epoch."""
        return {"SHIPBENCH_CACHE": str(self.cache), "SHIPBENCH_CHECKPOINT_SECONDS": "0", **self.environment}

    def start(self) -> Started:
        """Start the command in a process of its own."""
        phase = self.results.with_name(f".{self.results.name}-{secrets.token_hex(4)}.phase")
        watched = phase if self.watched else None
        process = start_fork(_command, self.arguments, self.all_environment, self.log, watched)
        return Started(process, self, phase)

    def run(self, seconds: float = 100) -> int:
        """Run the command to its end and return its exit code."""
        return self.start().wait(seconds)


@dataclass(frozen=True)
class Started:
    """A command that is running."""

    process: Any
    grid: Grid
    phase_file: Path

    @property
    def phase(self) -> str:
        """The phase that a watched command is in, or was in when it died."""
        return read_phase(self.phase_file)

    def send(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to the command's process alone, or to its whole process group."""
        if self.process.is_alive():
            # Until it runs, the new process still belongs to this one's group.
            whole = group and os.getpgid(self.process.pid) == self.process.pid
            (os.killpg if whole else os.kill)(self.process.pid, number)

    def wait(self, seconds: float = 100) -> int:
        """Wait for the command to end and return its exit code."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"the command did not end; it printed:\n{self.grid.said}")
        return int(self.process.exitcode)

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Wait until the command has printed ``text``."""
        end = time.monotonic() + seconds
        while text not in self.grid.said:
            if time.monotonic() > end or not self.process.is_alive():
                self.process.kill()
                raise TimeoutError(f"{text!r} was not printed, but:\n{self.grid.said}")
            time.sleep(0.02)

    def wait_for_lines(self, count: int, seconds: float) -> None:
        """Wait until the command has printed ``count`` lines, or has ended."""
        end = time.monotonic() + seconds
        while self.grid.said.count("\n") < count and self.process.is_alive() and time.monotonic() < end:
            time.sleep(0.02)


def make_grid(folder: Path, **changes: Any) -> Grid:
    """Return a grid over a new data folder."""
    vtab_tree(folder / "data", tasks=("dtd",), n_train=20, n_test=12)
    return replace(grid_in(folder), **changes)


def grid_in(folder: Path) -> Grid:
    """Return the grid that ``make_grid`` made in a folder, or in the folder of which this one is a copy."""
    return Grid(folder / "data", folder / "cache", folder / "undisturbed")


def _command(arguments: list[str], environment: dict[str, str], log: Path, phase_file: Path | None) -> None:
    if phase_file is not None:
        keep_phase(phase_file)
    command(arguments, environment, log)


def written(results: Path) -> dict[str, int]:
    """Return when each record of a folder was written."""
    return {path.stem: path.stat().st_mtime_ns for path in (results / "runs").glob("[!.]*.parquet")}


def differences(results: Path, undisturbed: Path) -> list[str]:
    """Return the differences between a folder and that of an undisturbed grid, apart from times."""
    a, b = (load_results(folder).sort_values("run_id", ignore_index=True) for folder in (results, undisturbed))
    if list(a["run_id"]) != list(b["run_id"]):
        return [f"{len(a)} runs instead of {len(b)}"]
    lines = [] if a.drop(columns=TIMES).equals(b.drop(columns=TIMES)) else ["records differ"]
    for load in (load_history, load_predictions):
        same = load(results, a["run_id"]).equals(load(undisturbed, a["run_id"]))
        lines += [] if same else [f"{load.__name__} differs"]
    return lines + [f"weights of {run_id} differ" for run_id in a["run_id"] if not _same(run_id, results, undisturbed)]


def leftovers(results: Path) -> list[str]:
    """Return the files of a finished grid that should have been removed."""
    hidden = [path for path in results.rglob(".*") if path.is_file()]
    unfinished: Iterable[Path] = [*(results / "claims").glob("*"), *(results / "checkpoints").glob("*")]
    return sorted({str(path.relative_to(results)) for path in [*hidden, *unfinished]})


def _same(run_id: str, *folders: Path) -> bool:
    first, second = (Store(folder).path("weights", run_id) for folder in folders)
    if not first.exists() or not second.exists():
        return first.exists() == second.exists()
    tensors = load_file(second)
    return all(torch.equal(value, tensors[name]) for name, value in load_file(first).items())
