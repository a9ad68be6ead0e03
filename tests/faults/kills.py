"""Kill commands and start them again until their grid is done; count the losses."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from typing import Any

from tests.faults.grids import Grid, Started, differences, leftovers, written

Say = Callable[[str], None]
_PATIENCE = 900.0
# A command gives up a run whose worker has died three times; with this many deaths it gives up none.
_DEATHS = 2


@dataclass(frozen=True)
class Kills:
    """The number and kind of faults to inject.

    ``at_once`` commands share a results folder. ``aimed`` names the phase that a kill waits for; without one, it
    strikes at a random moment.
    """

    count: int
    seed: int
    number: signal.Signals = signal.SIGKILL
    at_once: int = 1
    aimed: str = ""


@dataclass
class Tally:
    """Counts of injected faults and the phases they struck, of completed grids, and of losses."""

    faults: int = 0
    grids: int = 0
    runs: int = 0
    refused: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    def close(self, grid: Grid, undisturbed: Grid) -> None:
        """Count a completed grid, compare it with the undisturbed one and remove it."""
        name = grid.results.name
        self.lost += [f"{name}: {text}" for text in differences(grid.results, undisturbed.results)]
        self.lost += [f"{name}: {file} was left behind" for file in leftovers(grid.results)]
        self.grids += 1
        self.runs += len(written(grid.results))
        shutil.rmtree(grid.results)


def kill_at_random(grid: Grid, kills: Kills, longest: float, say: Say = print) -> Tally:
    """Execute ``grid`` repeatedly, in new folders, until ``kills.count`` of its commands have been killed.

    ``grid.results`` holds the undisturbed grid; a command is killed after at most ``longest`` seconds.
    """
    chance, tally = random.Random(kills.seed), Tally()
    while tally.faults < kills.count:
        disturbed = replace(grid, results=grid.results.with_name(f"disturbed-{tally.grids}"), watched=True)
        _until_done(disturbed, kills, longest, chance, tally)
        tally.close(disturbed, grid)
        say(f"{tally.faults} of {kills.count} kills, {tally.grids} grids, {len(tally.lost)} lost")
    return tally


def usual_seconds(grid: Grid) -> float:
    """Return the seconds that the whole grid takes with its images in the cache."""
    began = time.monotonic()
    again = replace(grid, results=grid.results.with_name("again"))
    code = again.run(_PATIENCE)
    seconds = time.monotonic() - began
    assert code == 0, again.log.read_text()
    assert differences(again.results, grid.results) == []
    shutil.rmtree(again.results)
    return seconds


def _until_done(grid: Grid, kills: Kills, longest: float, chance: random.Random, tally: Tally) -> None:
    running = [grid.start() for _ in range(kills.at_once)]
    records: dict[str, int] = {}
    while running:
        more = tally.faults < kills.count
        if more:
            _pause(running, kills.aimed, chance.uniform(0, longest))
        victim = chance.choice(running)
        if more and victim.process.is_alive():
            _strike(victim, kills.number, chance, tally)
            running[running.index(victim)] = grid.start()
        else:
            running.remove(victim)
            _expect(victim, 0, tally)
        now = written(grid.results)
        tally.lost += [f"record {run} was written twice" for run in records if now.get(run) != records[run]]
        records = now


def _pause(running: list[Started], aimed: str, seconds: float) -> None:
    """Wait for a random time, if a phase is aimed at from the moment that a command reaches it."""
    while aimed and not any(command.phase == aimed or not command.process.is_alive() for command in running):
        time.sleep(0.001)
    wait([command.process.sentinel for command in running], 0.1 * seconds if aimed else seconds)


def _strike(victim: Started, number: signal.Signals, chance: random.Random, tally: Tally) -> None:
    victim.send(number, group=chance.random() < 0.5)
    code = victim.wait(_PATIENCE)
    # A command that was just ending by itself does not count as killed.
    if code == 0:
        return
    tally.faults += 1
    tally.phases[victim.phase] += 1
    if code not in (-number, 128 + number):
        tally.lost.append(f"a command that was sent {number.name} ended with {code}")


def _expect(command: Started, code: int, tally: Tally) -> None:
    actual = command.wait(_PATIENCE)
    if actual != code:
        tally.lost.append(f"a command that was not killed ended with {actual}: {command.grid.said[-2000:]}")


def kill_workers_of_a_cluster(grid: Grid, count: int, seed: int, say: Say = print) -> Tally:
    """Execute ``grid`` repeatedly on a Dask cluster of two workers, until ``count`` workers have been killed.

    ``grid.results`` holds the undisturbed grid. The cluster replaces its dead workers.
    """
    import dask
    from distributed import LocalCluster

    chance, tally = random.Random(seed), Tally()
    options: dict[str, Any] = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    with (
        dask.config.set({"distributed.nanny.environ": grid.all_environment}),
        LocalCluster(n_workers=2, processes=True, **options) as cluster,
    ):
        there = (*grid.options, "--engine", "dask", "--scheduler", cluster.scheduler_address)
        while tally.faults < count:
            results = grid.results.with_name(f"cluster-{tally.grids}")
            disturbed = replace(grid, results=results, options=there)
            _kill_workers(disturbed, cluster, min(_DEATHS, count - tally.faults), chance, tally)
            tally.close(disturbed, grid)
            say(f"{tally.faults} of {count} workers killed, {tally.grids} grids, {len(tally.lost)} lost")
    return tally


def _kill_workers(grid: Grid, cluster: Any, count: int, chance: random.Random, tally: Tally) -> None:
    command = grid.start()
    for lines in sorted(chance.sample(range(3, 30), count)):
        command.wait_for_lines(lines, _PATIENCE)
        # A nanny does not replace a worker that dies before it has joined the scheduler.
        joined = cluster.scheduler.workers
        workers = [nanny.pid for nanny in cluster.workers.values() if nanny.pid and nanny.worker_address in joined]
        if command.process.is_alive() and workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            tally.faults += 1
    _expect(command, 0, tally)
