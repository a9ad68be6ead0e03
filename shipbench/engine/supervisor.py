"""Carries out a plan: here, in worker processes or on a cluster, beside other processes with plans of their own."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from shipbench.engine.attempt import give_up
from shipbench.engine.executors.inline import execute_inline
from shipbench.engine.jobs import jobs_on_cpu
from shipbench.errors import ShipbenchError
from shipbench.events import Reporter
from shipbench.hardware.device import resolve_device
from shipbench.planning.plan import Plan, PlannedRun
from shipbench.planning.stacks import Stacking, in_stacks
from shipbench.record import RunRecord
from shipbench.results import claims
from shipbench.results.store import Store
from shipbench.runtime.console import say

Carry = Callable[[Sequence[PlannedRun]], None]
_POLL_SECONDS = 1.0
# A run whose process died so often beside no other run, without an error of its own, would only kill the next one.
_DEATHS = 3


def carry_out_plan(
    plan: Plan,
    results: Path,
    jobs: int,
    reporter: Reporter,
    scheduler: str | None = None,
    stacking: Stacking | None = None,
) -> list[RunRecord]:
    """Carry out the chosen runs and return their records, failed ones included; one failure stops no other run.

    Runs that other processes are doing in the same folder are left to them and waited for. ``scheduler`` is the
    address of a Dask scheduler whose workers do the runs, one by one, instead of ``jobs`` processes here. ``stacking``
    says which runs these may train together; by default none. Raises ``StoreError`` if the results folder cannot be
    written to.
    """
    grid = _Grid(plan.chosen, results, reporter, apart=scheduler is not None)
    claims.tidy(grid.store)
    try:
        grid.until_all_are_over(_carry(grid, results, jobs, scheduler, stacking or Stacking()))
    except BaseException:
        # Workers that were ended could not give their runs free; a full disk is no reason to hide what happened.
        with suppress(ShipbenchError):
            claims.tidy(grid.store)
        raise
    return [record for run in plan.chosen if (record := grid.store.read(run.run_id)) is not None]


def default_jobs(plan: Plan) -> int:
    """Return one worker for each CUDA device, or as many as the CPU does best, which may have to be measured."""
    device = resolve_device(plan.runs[0].spec.device)
    if device.type == "cpu":
        return jobs_on_cpu(plan)
    return torch.cuda.device_count() if device.index is None else 1


def _carry(grid: _Grid, results: Path, jobs: int, scheduler: str | None, stacking: Stacking) -> Carry:
    if scheduler is not None:
        from shipbench.engine.executors.dask import carry_on_cluster

        return lambda runs: carry_on_cluster(runs, results, scheduler, grid.hear)
    if jobs > 1:
        from shipbench.engine.executors.processes import carry_in_workers

        return lambda runs: carry_in_workers(
            grid.in_stacks(runs, stacking, jobs), results, jobs, grid.hear, measured=stacking.measured
        )
    return lambda runs: execute_inline(grid.in_stacks(runs, stacking), results, grid.hear, stacking.measured)


class _Grid:
    """Runs that are to be carried out: which of them are over is read from the store, whoever did them.

    ``apart`` are runs that do not compete for one machine's memory: of each that began and did not end, it is known
    that it was its own process that died. Others may have been their neighbours' victims; that shows when they are
    done alone.
    """

    def __init__(self, runs: Sequence[PlannedRun], results: Path, reporter: Reporter, *, apart: bool = False) -> None:
        self.store = Store(results)
        self.runs = {run.run_id: run for run in runs}
        self.reporter = reporter
        self.apart = apart
        self.under_way: set[str] = set()
        self.suspects: set[str] = set()
        self.deaths: Counter[str] = Counter()
        self.epochs: Counter[str] = Counter()
        self.told: set[str] = set()
        self.waiting = 0
        self.lock = threading.Lock()

    def until_all_are_over(self, carry: Carry) -> None:
        """Carry out what nobody else is doing, again and again, until every run has a new record."""
        left = list(self.runs.values())
        while left:
            free = [run for run in left if claims.holder(self.store.root, run.run_id) is None]
            self._say_what_others_do(left, free)
            ready = self._ready(free)
            if ready:
                carry(ready)
            left = self._left(left)
            if left:
                time.sleep(_POLL_SECONDS)

    def in_stacks(self, runs: Sequence[PlannedRun], stacking: Stacking, jobs: int = 1) -> list[tuple[PlannedRun, ...]]:
        """Group runs that may be trained together, so that all of ``jobs`` processes have something to do."""
        return in_stacks(runs, min(stacking.most, math.ceil(len(runs) / jobs)))

    def hear(self, run_id: str, kind: str, content: Any) -> None:
        """Tell the reporter what happens to a run."""
        with self.lock:
            run = self.runs[run_id]
            if run_id in self.told:
                return
            if kind == "started":
                # A cluster gives the run of a worker that died to another one.
                self.deaths[run_id] += run_id in self.under_way
                self.under_way.add(run_id)
                self.reporter.started(run)
            elif kind == "note":
                self.reporter.note(run, content)
            elif kind == "epoch":
                self._count_epoch(run_id, content.epoch + 1)
                self.reporter.epoch(run, content)
            elif kind == "lost":
                self.under_way.discard(run_id)
                self.reporter.note(run, "was given to another process")
            else:
                self.under_way.discard(run_id)
                self.told.add(run_id)
                self.reporter.finished(run, content)

    def _ready(self, free: Sequence[PlannedRun]) -> Sequence[PlannedRun]:
        """Return what to carry out now: runs that died beside others come last, and one at a time."""
        for run in free:
            if run.run_id in self.under_way:
                self._count_death(run.run_id)
        alive = [run for run in free if not self._is_given_up(run)]
        return [run for run in alive if run.run_id not in self.suspects] or alive[:1]

    def _count_death(self, run_id: str) -> None:
        self.under_way.discard(run_id)
        if self.apart or run_id in self.suspects:
            self.deaths[run_id] += 1
        else:
            self.suspects.add(run_id)

    def _count_epoch(self, run_id: str, epochs: int) -> None:
        """Forget the deaths of a run that has come further than ever: it will end, however often it is killed."""
        if epochs > self.epochs[run_id]:
            self.epochs[run_id] = epochs
            del self.deaths[run_id]

    def _is_given_up(self, run: PlannedRun) -> bool:
        if self.deaths[run.run_id] < _DEATHS:
            return False
        reason = f"its process died {_DEATHS} times without an error (killed for lack of memory, perhaps)"
        give_up(run, self.store.root, reason)
        return True

    def _left(self, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
        left = []
        for run in runs:
            if self.store.written(run.run_id) == run.record_version:
                left.append(run)
            else:
                self.hear(run.run_id, "finished", self.store.read(run.run_id))
        return left

    def _say_what_others_do(self, left: Sequence[PlannedRun], free: Sequence[PlannedRun]) -> None:
        held = [run for run in left if run not in free]
        if held and len(held) != self.waiting:
            who = claims.holder(self.store.root, held[0].run_id) or "another process"
            then = "the others come first" if free else "waiting for them"
            runs = "a run is" if len(held) == 1 else f"{len(held)} runs are"
            say(f"{runs} being done by another process ({who}); {then}")
        self.waiting = len(held)
