"""Processes that start at once: forks of a server that has imported ``tests.preloaded``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any


def fork_context() -> Any:
    """Return the context of the fork server, which imports ``tests.preloaded`` in the background."""
    # Windows lacks the module.
    from multiprocessing.forkserver import ensure_running

    context = get_context("forkserver")
    # The benchmark of memory uses the same server; it would have it import torch alone.
    context.set_forkserver_preload(["tests.preloaded"])
    ensure_running()
    return context


def start_fork(target: Callable[..., None], *arguments: Any) -> Any:
    """Start a process that calls ``target`` with the arguments."""
    process = fork_context().Process(target=target, args=arguments)
    process.start()
    return process


def enter(environment: Mapping[str, str], output: Path) -> None:
    """Give this process its environment variables and append its output to a file."""
    os.environ.update(environment)
    descriptor = os.open(output, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def command(arguments: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
    """Be ``shipbench ARGUMENTS...``, the leader of a session, and exit as it does."""
    os.setsid()
    # Tests that run in the background ignore SIGINT, and their children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    enter(environment, output)
    sys.argv = ["shipbench", *arguments]
    from shipbench.cli import main

    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    # On exit, a forked process would wait for joblib's idle workers, which an ordinary process stops.
    sys.stdout.flush()
    os._exit(code)
