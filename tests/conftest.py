"""Fixtures that every folder of tests may use.

The process that hands out the tests loads this file before it starts those that run them, so everything large is
imported where it is needed.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.forks import fork_context

# Columns in which a run that is repeated may differ.
TIMES = [
    "created",
    "train_seconds",
    "eval_seconds",
    "train_images_per_second",
    "eval_images_per_second",
    "peak_memory_bytes",
]

# The readline library puts the size of the terminal into the environment of child processes, such as pytest's workers.
for _size in ("COLUMNS", "LINES"):
    os.environ.pop(_size, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options with which reports/gpu.sh runs the tests of tests/cuda."""
    parser.addoption("--device", default="cpu", help="device of the tests in tests/cuda: cpu or cuda")
    parser.addoption("--outcomes", type=Path, help="write the outcome of every test to this JSON file as it ends")


def pytest_configure(config: pytest.Config) -> None:
    """Write outcomes to a file if the command line names one; have files start in the order of their collection."""
    # Shells start background jobs with Ctrl-C ignored, and the processes of the tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # pytest-xdist 3.8 can leave that order alone; by itself it starts with the files of the most tests.
    config.option.loadscopereorder = False
    file = config.getoption("--outcomes")
    if file is not None:
        config.pluginmanager.register(_Outcomes(file, config.getoption("--device")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the fault tests: a long file that starts last would leave the other processes idle."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/faults/"))


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Look for no garbage among imported modules: half a second for each search, here and during the tests."""
    gc.disable()
    try:
        # The process that hands out the tests has this plugin, and collects none.
        if not session.config.pluginmanager.hasplugin("dsession"):
            _choose_examples()
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _choose_examples() -> None:
    """Let the examples of hypothesis be the same in every run, and judge none by how long it took."""
    from hypothesis import settings

    settings.register_profile("shipbench", deadline=None, derandomize=True, database=None)
    settings.load_profile("shipbench")


class _Outcomes:
    """Writes the outcome of every test to a file, in the form of the parts of ``shipbench bench --all``."""

    def __init__(self, file: Path, device: str) -> None:
        self.file, self.device = file, device
        self.rows: list[dict[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add the outcome of a test, or of a set-up that failed or skipped it."""
        if report.when == "call" or report.outcome != "passed":
            self.rows.append({"test": report.nodeid, "outcome": report.outcome, "reason": _last_line(report)})
            self._write(finished=False)

    def pytest_sessionfinish(self) -> None:
        """Mark the file as complete."""
        self._write(finished=True)

    def _write(self, *, finished: bool) -> None:
        import torch

        from shipbench.hardware.device import device_name
        from shipbench.runtime.files import atomic_path

        name = device_name(torch.device(self.device))
        content = {"part": "equality", "finished": finished, "error": "", "device": name, "torch": torch.__version__}
        with atomic_path(self.file) as temporary:
            temporary.write_text(json.dumps(content | {"rows": self.rows}, indent=1) + "\n", encoding="utf-8")


def _last_line(report: pytest.TestReport) -> str:
    return "" if report.outcome == "passed" else report.longreprtext.strip().rpartition("\n")[2][:300]


@pytest.fixture(scope="session", autouse=True)
def _two_threads_at_most() -> None:
    import torch

    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, torch.get_num_threads()))


@pytest.fixture(scope="session", autouse=True)
def _fork_server() -> None:
    """Start the fork server beside the first tests; without several processes of tests, it starts when needed."""
    if "PYTEST_XDIST_WORKER" in os.environ and os.name == "posix":
        fork_context()


@pytest.fixture(scope="session", autouse=True)
def _unsynced_files() -> Iterator[None]:
    """Do not wait for the disk: files of tests need not outlive a power cut. The processes of tests/faults do wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def _parser_of() -> Callable[[Any], Any]:
    """Build the parser of an application once; it takes 30 ms."""
    import typer.main

    return functools.cache(typer.main.get_command)


@pytest.fixture
def one_parser(_parser_of: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Command lines of this process share a parser."""
    monkeypatch.setattr("typer.main.get_command", _parser_of)


@pytest.fixture(autouse=True)
def _nothing_said_before() -> None:
    """Print again what a process prints once."""
    from shipbench.runtime.console import say_once

    say_once.cache_clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for this test alone."""
    monkeypatch.setenv("SHIPBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static passes on the CPU, and steps recorded on tapes: what a CUDA device does with graphs."""
    from shipbench.prompting import static
    from shipbench.training import graphs
    from tests.tapes import Tapes

    monkeypatch.setattr(static, "is_static", lambda device: True)
    monkeypatch.setitem(graphs.RECORDERS, "cpu", Tapes)


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes that are forks and need not import torch; tests/faults kills ordinary ones."""
    if os.name != "posix":
        return
    from joblib.externals.loky import ProcessPoolExecutor

    pool = functools.partial(ProcessPoolExecutor, context=fork_context())
    monkeypatch.setattr("shipbench.engine.executors.processes.ProcessPoolExecutor", pool)


@dataclass(frozen=True)
class Outcome:
    """What a command line left behind."""

    code: int
    out: str
    err: str


Shipbench = Callable[..., Outcome]


@pytest.fixture
def shipbench(one_parser: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shipbench:
    """Run ``shipbench ARGUMENTS...`` in this process, through the same entry point as the console script."""
    from shipbench.cli import main

    # It would end the process of the tests.
    monkeypatch.setattr("shipbench.runtime.exits.leave", lambda stop: None)

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["shipbench", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call
