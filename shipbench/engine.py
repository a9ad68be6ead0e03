"""Carries out a plan: one run after another in this process, or several at once in joblib's worker processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed, parallel_config

from shipbench.device import devices_for_workers, resolve_device
from shipbench.grid import Plan, PlannedRun
from shipbench.progress import Reporter
from shipbench.runner import blank_record, carry_out, prepare
from shipbench.store import RunRecord, Store
from shipbench.training.loop import EpochReport

Emit = Callable[[str, Any], None]


@dataclass(frozen=True)
class _Events:
    """Where a worker's events go: a queue to the process that shows them."""

    queue: Any
    run_id: str

    def __call__(self, kind: str, content: Any) -> None:
        # Predictions are on disk; there is no need to send them through a pipe as well.
        brief = content.without_predictions() if isinstance(content, EpochReport) else content
        self.queue.put((self.run_id, kind, brief))


def carry_out_plan(plan: Plan, results: Path, jobs: int, reporter: Reporter) -> list[RunRecord]:
    """Carry out the chosen runs and return their records, failed ones included; one failure stops no other run."""
    if not plan.chosen:
        return []
    if jobs == 1:
        return [_attempt(run, results, _teller(run, reporter)) for run in plan.chosen]
    return _in_workers(plan.chosen, results, jobs, reporter)


def default_jobs(device: str) -> int:
    """Return one worker for each CUDA device, or one for the CPU, whose threads it uses all."""
    resolved = resolve_device(device)
    return torch.cuda.device_count() if str(resolved) == "cuda" else 1


def _teller(run: PlannedRun, reporter: Reporter) -> Emit:
    return lambda kind, content: _tell(reporter, run, kind, content)


def _tell(reporter: Reporter, run: PlannedRun, kind: str, content: Any) -> None:
    if kind == "started":
        reporter.started(run)
    elif kind == "note":
        reporter.note(run, content)
    elif kind == "epoch":
        reporter.epoch(run, content)
    else:
        reporter.finished(run, content)


def _attempt(run: PlannedRun, results: Path, emit: Emit) -> RunRecord:
    """Carry out one run; whatever goes wrong becomes a failed record."""
    store = Store(results)
    emit("started", None)
    prepared = prepare(run.spec)
    try:
        record = carry_out(prepared, store, lambda text: emit("note", text), lambda report: emit("epoch", report))
    except Exception as error:
        if os.environ.get("SHIPBENCH_DEBUG"):
            raise
        record = blank_record(run.spec, run.run_id, prepared, error=_one_line(error))
        store.write(record)
    emit("finished", record)
    return record


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 500 else text[:497] + "..."


def _in_workers(runs: tuple[PlannedRun, ...], results: Path, jobs: int, reporter: Reporter) -> list[RunRecord]:
    from multiprocessing import Manager

    threads = max(1, (os.cpu_count() or 1) // jobs)
    devices = devices_for_workers(resolve_device(runs[0].spec.device), jobs)
    by_id = {run.run_id: run for run in runs}
    with Manager() as manager:
        queue: Any = manager.Queue()
        listener = threading.Thread(target=_listen, args=(queue, by_id, reporter), daemon=True)
        listener.start()
        with parallel_config(backend="loky", inner_max_num_threads=threads):
            records = Parallel(n_jobs=jobs)(
                delayed(_in_worker)(run, results, devices[index % jobs], threads, _Events(queue, run.run_id))
                for index, run in enumerate(runs)
            )
        queue.put(None)
        listener.join()
    return list(records)


def _in_worker(run: PlannedRun, results: Path, device: str, threads: int, emit: _Events) -> RunRecord:
    torch.set_num_threads(threads)
    placed = replace(run, spec=replace(run.spec, device=device))
    return _attempt(placed, results, emit)


def _listen(queue: Any, runs: dict[str, PlannedRun], reporter: Reporter) -> None:
    while (event := queue.get()) is not None:
        run_id, kind, content = event
        _tell(reporter, runs[run_id], kind, content)
