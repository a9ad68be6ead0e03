"""Process identities: a process that ended, or whose id was reused, is not running; others cannot be judged."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from shipbench.runtime import process_identity
from shipbench.runtime.process_identity import ProcessIdentity, current_process, is_running

needs_start_times = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="this system does not report start times of processes"
)


def test_a_process_that_ended_is_not_running() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert is_running(replace(current_process(), pid=child.pid)) is False


@needs_start_times
def test_a_process_that_ended_and_waits_for_its_parent_is_not_running() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = replace(current_process(), pid=child.pid, started=process_identity._start_time(child.pid) or "")
    assert is_running(process) is True
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_running(process) is False
    child.communicate()


@needs_start_times
def test_this_process_is_running() -> None:
    assert is_running(current_process()) is True


@needs_start_times
def test_a_reused_process_id_is_not_the_same_process() -> None:
    assert is_running(replace(current_process(), started="1")) is False


def test_a_process_of_another_machine_cannot_be_judged() -> None:
    assert is_running(replace(current_process(), place="far")) is None


@pytest.mark.parametrize(("error", "running"), [(None, None), (PermissionError, None), (ProcessLookupError, False)])
def test_without_start_times_an_id_in_use_may_be_that_of_another_process(
    monkeypatch: pytest.MonkeyPatch, error: type[OSError] | None, running: bool | None
) -> None:
    """As on macOS; a process of another user refuses the signal."""

    def kill(pid: int, number: int) -> None:
        assert number == 0
        if error is not None:
            raise error

    monkeypatch.setattr(process_identity, "_place", lambda: "here")
    monkeypatch.setattr(process_identity, "Path", lambda _: SimpleNamespace(exists=lambda: False))
    monkeypatch.setattr(os, "kill", kill)
    assert is_running(ProcessIdentity("host", "here", 7, "")) is running


@pytest.mark.parametrize(("error", "running"), [(PermissionError, None), (ProcessLookupError, False)])
def test_a_process_that_the_system_hides_from_other_users_may_be_running(
    monkeypatch: pytest.MonkeyPatch, error: type[OSError], running: bool | None
) -> None:
    """As where /proc is mounted with hidepid, on many clusters."""

    def read_text() -> str:
        raise FileNotFoundError

    def kill(pid: int, number: int) -> None:
        raise error

    monkeypatch.setattr(process_identity, "_place", lambda: "here")
    monkeypatch.setattr(process_identity, "Path", lambda _: SimpleNamespace(exists=lambda: True, read_text=read_text))
    monkeypatch.setattr(os, "kill", kill)
    assert is_running(ProcessIdentity("host", "here", 7, "123")) is running


def test_windows_is_never_asked_by_a_signal_whether_a_process_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, os.kill(pid, 0) interrupts or ends the process."""
    killed: list[int] = []
    monkeypatch.setattr(process_identity, "_place", lambda: "here")
    monkeypatch.setattr(process_identity, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(process_identity, "Path", lambda _: SimpleNamespace(exists=lambda: False))
    monkeypatch.setattr(os, "kill", lambda pid, _: killed.append(pid))
    process = replace(current_process(), pid=os.getpid())
    assert process.started == ""
    assert is_running(process) is None
    assert killed == []
