"""Several runs at once in worker processes on this machine, each with a device of its own."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from joblib.externals.loky import BrokenProcessPool, ProcessPoolExecutor

from shipbench.engine.executors.channel import Address, Channel, Sender
from shipbench.engine.jobs import threads_of_each
from shipbench.engine.stacked import Tell, attempt_stack
from shipbench.hardware.device import devices_for_workers, resolve_device
from shipbench.planning.plan import PlannedRun
from shipbench.runtime.console import say
from shipbench.runtime.interrupts import leave_signals_to_the_parent

Stack = Sequence[PlannedRun]
# What the libraries that a run computes with ask for their number of threads.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def carry_in_workers(stacks: Sequence[Stack], results: Path, jobs: int, hear: Tell, *, measured: bool) -> None:
    """Attempt every stack in one of ``jobs`` worker processes; ``hear(run_id, kind, content)`` gets their events.

    The cores are divided by ``jobs`` even if fewer runs are left, so that those repeat what they would have been.
    A worker that dies ends no other; who calls sees in the store what is left to do. All workers end before this
    function does.
    """
    threads = threads_of_each(jobs)
    devices = devices_for_workers(resolve_device(stacks[0][0].spec.device), jobs)
    with Channel(hear) as channel, warnings.catch_warnings(), _crew(devices[: len(stacks)], threads) as workers:
        # Between two runs loky replaces a worker that has grown in memory, as one does; nothing is lost by that.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor")

        def begin(worker: _Worker, stack: Stack) -> Future[None]:
            return worker.submit(stack, results, worker.device, threads, channel.address, measured)

        _share_out(stacks, workers, begin)


@contextmanager
def _crew(devices: Sequence[str], threads: int) -> Iterator[list[_Worker]]:
    """Yield a worker for each device; they end with the block, at once if it is left by an exception."""
    workers = [_Worker(device, threads) for device in devices]
    try:
        yield workers
    except BaseException:
        for worker in workers:
            worker.end(at_once=True)
        raise
    for worker in workers:
        worker.end()


class _Worker:
    """A process that does one stack after another on its device, and that is replaced when it dies."""

    def __init__(self, device: str, threads: int) -> None:
        self.device = device
        self._environment = dict.fromkeys(_THREADS, str(threads))
        self._executor = self._started()

    def submit(self, *arguments: Any) -> Future[None]:
        """Begin a stack; the arguments are those of ``_in_worker``."""
        return self._executor.submit(_in_worker, *arguments)

    def replace(self) -> None:
        """Go on with a new process after the death of the old one."""
        self.end()
        self._executor = self._started()

    def end(self, *, at_once: bool = False) -> None:
        """End the process, ``at_once`` or when it has done what it was given."""
        self._executor.shutdown(wait=True, kill_workers=at_once)

    def _started(self) -> Any:
        return ProcessPoolExecutor(max_workers=1, env=self._environment)


def _share_out(
    stacks: Sequence[Stack], workers: Sequence[_Worker], begin: Callable[[_Worker, Stack], Future[None]]
) -> None:
    """Let every worker do the next stack when it is free."""
    waiting, free = list(reversed(stacks)), list(reversed(workers))
    busy: dict[Future[None], _Worker] = {}
    while waiting or busy:
        while waiting and free:
            worker = free.pop()
            busy[begin(worker, waiting.pop())] = worker
        for future in wait(busy, return_when=FIRST_COMPLETED).done:
            worker = busy.pop(future)
            try:
                future.result()
            except BrokenProcessPool:
                say("a worker process died; its run is tried again alone, after the others, from its last checkpoint")
                worker.replace()
            free.append(worker)


def _in_worker(stack: Stack, results: Path, device: str, threads: int, address: Address, measured: bool) -> None:
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
