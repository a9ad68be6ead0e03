"""Execute several runs in parallel, in worker processes on this machine that each keep one device."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from joblib.externals.loky import BrokenProcessPool, ProcessPoolExecutor

from shipbench.engine.attempt import in_worker
from shipbench.engine.executors.channel import Address, Channel, Sender
from shipbench.engine.stacked import attempt_stack
from shipbench.errors import DeviceLostError
from shipbench.events import Listener, Note
from shipbench.hardware.device import devices_for_workers, resolve_device
from shipbench.planning.plan import PlannedRun
from shipbench.planning.stacks import Stack
from shipbench.runtime.interrupts import children_without_interrupts, leave_signals_to_the_parent

# The variables from which numerical libraries read their number of threads.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# Under Windows, Ctrl-C takes effect when the waiting ends.
_WAIT_SECONDS = 1.0
_WORKER_DIED = "a worker process died; its run will be repeated alone, after the others, from its last checkpoint"


def execute_in_processes(stacks: Sequence[Stack], results: Path, jobs: int, threads: int, emit: Listener) -> None:
    """Attempt every stack in one of ``jobs`` worker processes with ``threads`` threads; return when all have ended.

    A dead worker does not stop the others; check the store for unfinished runs. Raises ``DeviceLostError`` if no device
    is left that works in a new process.
    """
    devices = devices_for_workers(resolve_device(stacks[0].runs[0].spec.device), jobs)
    with Channel(emit) as channel, warnings.catch_warnings():
        # Between two runs, loky replaces a worker whose memory has grown; nothing is lost.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor")
        workers = [_Worker(device, threads, results, channel.address) for device in _needed(devices, len(stacks))]
        with _stopping(workers):
            _distribute(stacks, workers, emit)


def _needed(devices: Sequence[str], stacks: int) -> list[str]:
    """Return the devices of workers for a number of stacks; the last ones work only if another device fails."""
    return [*devices[:stacks], *(device for device in dict.fromkeys(devices) if device not in devices[:stacks])]


@contextmanager
def _stopping(workers: Sequence[_Worker]) -> Iterator[None]:
    """Stop the workers at the end of the block, at once after an exception."""
    try:
        yield
    except BaseException:
        for worker in workers:
            worker.stop(kill=True)
        raise
    for worker in workers:
        worker.stop()


class _Worker:
    """A process that executes one stack after another on its device, and that can be replaced after its death."""

    def __init__(self, device: str, threads: int, results: Path, address: Address) -> None:
        self._settings = results, device, threads, address
        self._environment = dict.fromkeys(_THREADS, str(threads))
        self._pool = self._new_pool()

    def submit(self, stack: Stack) -> Future[None]:
        """Start a stack."""
        # The first stack starts the process.
        with children_without_interrupts():
            try:
                return self._pool.submit(_in_worker, stack, *self._settings)
            except BrokenProcessPool:
                # It died while it had nothing to do.
                self.replace()
                return self._pool.submit(_in_worker, stack, *self._settings)

    def replace(self) -> None:
        """Start a new process in place of a dead one."""
        self.stop()
        self._pool = self._new_pool()

    def stop(self, *, kill: bool = False) -> None:
        """Stop the process after its present stack, or at once with ``kill``."""
        self._pool.shutdown(wait=True, kill_workers=kill)

    def _new_pool(self) -> Any:
        return ProcessPoolExecutor(max_workers=1, env=self._environment)


def _distribute(stacks: Sequence[Stack], workers: Sequence[_Worker], emit: Listener) -> None:
    """Give each idle worker the next stack, until all stacks are done; replace workers that die.

    A worker whose device fails in a new process too gets no other stack.
    """
    waiting, idle = list(reversed(stacks)), list(reversed(workers))
    busy: dict[Future[None], tuple[_Worker, Stack]] = {}
    while waiting or busy:
        while waiting and idle:
            worker, stack = idle.pop(), waiting.pop()
            busy[worker.submit(stack)] = worker, stack
        for future in wait(busy, _WAIT_SECONDS, FIRST_COMPLETED).done:
            worker, stack = busy.pop(future)
            try:
                future.result()
            except BrokenProcessPool:
                emit(Note(None, _WORKER_DIED))
                worker.replace()
            except DeviceLostError as error:
                # The stack has not begun, so another worker can take it.
                waiting.append(stack)
                if not (busy or idle):
                    raise
                emit(Note(None, f"{error}; continuing without it"))
                continue
            idle.append(worker)


def _in_worker(stack: Stack, results: Path, device: str, threads: int, address: Address) -> None:
    leave_signals_to_the_parent()
    _exit_with_the_parent()
    torch.set_num_threads(threads)
    on_device = Stack(_on(device, stack.runs), _on(device, stack.due))
    with in_worker(device), closing(Sender(address)) as emit:
        attempt_stack(on_device, results, emit)


def _on(device: str, runs: Sequence[PlannedRun]) -> tuple[PlannedRun, ...]:
    """Return runs on a device of this machine, in the precision that was planned: another GPU may prefer another."""
    precisions: list[Any] = [run.precision or run.spec.precision for run in runs]
    return tuple(
        replace(run, spec=replace(run.spec, device=device, precision=precision))
        for run, precision in zip(runs, precisions, strict=True)
    )


@cache
def _exit_with_the_parent() -> None:
    """Watch the process that started this worker, from now on, and exit when it is gone."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
