"""Several runs at once in joblib's worker processes on this machine, one for each device."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import BrokenProcessPool

from shipbench.attempt import attempt
from shipbench.concurrency import threads_of_each
from shipbench.console import say
from shipbench.device import devices_for_workers, resolve_device
from shipbench.events import Address, Channel, Sender
from shipbench.grid import PlannedRun
from shipbench.interrupts import leave_signals_to_the_parent


def carry_in_workers(runs: Sequence[PlannedRun], results: Path, jobs: int, hear: Any) -> None:
    """Attempt every run in one of ``jobs`` worker processes; ``hear(run_id, kind, content)`` gets their events.

    The cores are divided by ``jobs`` even if fewer runs are left, so that those repeat what they would have been.
    A worker that dies takes its round with it; who calls sees in the store what is left to do. All workers end before
    an exception leaves this function.
    """
    threads = threads_of_each(jobs)
    devices = devices_for_workers(resolve_device(runs[0].spec.device), jobs)
    try:
        with Channel(hear) as channel, parallel_config(backend="loky", inner_max_num_threads=threads):
            # With one job, joblib would not start a process, whose threads are its own.
            Parallel(n_jobs=max(2, min(jobs, len(runs))), batch_size=1)(
                delayed(_in_worker)(run, results, devices[index % jobs], threads, channel.address)
                for index, run in enumerate(runs)
            )
    except BrokenProcessPool:
        say("a worker process died; its run starts again from its last checkpoint")
    except BaseException:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)
        raise


def _in_worker(run: PlannedRun, results: Path, device: str, threads: int, address: Address) -> None:
    leave_signals_to_the_parent()
    _die_with_the_parent()
    torch.set_num_threads(threads)
    sender = Sender(address, run.run_id)
    try:
        attempt(replace(run, spec=replace(run.spec, device=device)), results, sender)
    finally:
        sender.close()


@cache
def _die_with_the_parent() -> None:
    """Watch, from now on, whether the process that started this worker is still there."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
