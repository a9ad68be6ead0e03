"""Several runs at once in joblib's worker processes on this machine, one for each device."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import BrokenProcessPool

from shipbench.concurrency import threads_of_each
from shipbench.console import say
from shipbench.device import devices_for_workers, resolve_device
from shipbench.events import Address, Channel, Sender
from shipbench.grid import PlannedRun
from shipbench.interrupts import leave_signals_to_the_parent
from shipbench.stack_attempt import Tell, attempt_stack


def carry_in_workers(
    stacks: Sequence[Sequence[PlannedRun]], results: Path, jobs: int, hear: Tell, *, measured: bool
) -> None:
    """Attempt every stack in one of ``jobs`` worker processes; ``hear(run_id, kind, content)`` gets their events.

    The cores are divided by ``jobs`` even if fewer runs are left, so that those repeat what they would have been.
    A worker that dies takes its round with it; who calls sees in the store what is left to do. All workers end before
    an exception leaves this function.
    """
    threads = threads_of_each(jobs)
    devices = devices_for_workers(resolve_device(stacks[0][0].spec.device), jobs)
    try:
        with (
            Channel(hear) as channel,
            parallel_config(backend="loky", inner_max_num_threads=threads),
            warnings.catch_warnings(),
        ):
            # Between two runs loky replaces a worker that has grown in memory, as one does; nothing is lost by that.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor")
            # With one job, joblib would not start a process, whose threads are its own.
            Parallel(n_jobs=max(2, min(jobs, len(stacks))), batch_size=1)(
                delayed(_in_worker)(stack, results, devices[index % jobs], threads, channel.address, measured)
                for index, stack in enumerate(stacks)
            )
    except BrokenProcessPool:
        say("a worker process died; its run starts again from its last checkpoint")
    except BaseException:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)
        raise


def _in_worker(
    stack: Sequence[PlannedRun], results: Path, device: str, threads: int, address: Address, measured: bool
) -> None:
    leave_signals_to_the_parent()
    _die_with_the_parent()
    torch.set_num_threads(threads)
    senders = {run.run_id: Sender(address, run.run_id) for run in stack}
    here = [replace(run, spec=replace(run.spec, device=device)) for run in stack]
    try:
        attempt_stack(here, results, lambda run_id, *event: senders[run_id](*event), measured=measured)
    finally:
        for sender in senders.values():
            sender.close()


@cache
def _die_with_the_parent() -> None:
    """Watch, from now on, whether the process that started this worker is still there."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
