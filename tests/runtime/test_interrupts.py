"""Ctrl-C: while the command loads, while a module is imported, after the outcome is settled."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shipbench.runtime.interrupts import TimeUp, exit_code, signals_interrupt, time_limit

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals as POSIX systems do")
# Sends itself SIGINT when the module that the line names is imported, or when the process ends.
COMMAND = """
import atexit, os, signal, sys

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class Finder:
    def find_spec(name, *_):
        if name == moment:
            interrupt()

moment = sys.argv.pop(1)
sys.meta_path.insert(0, Finder)
atexit.register(lambda: moment == "exit" and interrupt())
signal.signal(signal.SIGINT, signal.SIG_IGN if sys.argv.pop(1) == "ignored" else signal.default_int_handler)
from shipbench.__main__ import main
main()
"""


def _import_and_sleep(module: str) -> None:
    with signals_interrupt():
        importlib.import_module(module)
        time.sleep(20)


def test_a_time_limit_ends_a_block_and_nothing_after_it() -> None:
    handled = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeUp) as stop, time_limit(0.05):
        time.sleep(20)
    assert exit_code(stop.value) == 0
    with time_limit(1000):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) is handled


def _interrupted(moment: str, signals: str = "default") -> tuple[int, str, bool]:
    line = [sys.executable, "-c", COMMAND, moment, signals, "list", "selections"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr, "final" in done.stdout


def test_an_interruption_while_the_command_loads_is_one_sentence() -> None:
    sentence = "stopped before anything started; run the same command again\n"
    assert _interrupted("shipbench.cli") == (130, sentence, False)


def test_an_interruption_after_the_end_does_not_change_the_outcome() -> None:
    code, said, printed = _interrupted("exit")
    assert (code, printed) == (0, True)
    assert "Traceback" not in said
    assert "stopped" not in said


def test_a_background_job_of_a_shell_ignores_interruptions() -> None:
    code, said, printed = _interrupted("shipbench.cli.listing", "ignored")
    assert (code, printed) == (0, True)
    assert "stopped" not in said


def test_an_interruption_waits_for_the_end_of_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_module.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.1)\nloaded = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        _import_and_sleep("slow_module")
    assert sys.modules["slow_module"].loaded
    assert time.monotonic() - began < 10
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(os.name != "posix", reason="sends signals as POSIX systems do")
def test_ctrl_c_in_the_last_moment_does_not_change_the_exit_code() -> None:
    interrupt = "lambda *_, kill=os.kill, pid=os.getpid(), number=signal.SIGINT: kill(pid, number)"
    # Objects of the main module are deleted after all exit handlers have been called.
    program = f"""
import os, signal, sys
from shipbench.__main__ import main
last = type("Last", (), {{"__del__": {interrupt}}})()
sys.argv = ["shipbench", "--version"]
main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_collector_does_not_search_what_is_left_at_the_end_of_a_command() -> None:
    program = """
import atexit, gc, sys
atexit.register(lambda: print(gc.get_freeze_count() > 0))
from shipbench.__main__ import main
sys.argv = ["shipbench", "--version"]
main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, "True")
