"""Kill grids at random moments, damage their files and count the losses: ``python -m tests.faults.campaign``."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.damage import damage_bytes
from tests.faults.grids import Grid, make_grid
from tests.faults.kills import Kills, Tally, kill_at_random, kill_workers_of_a_cluster, usual_seconds
from tests.faults.phases import PHASES, STORING

Row = tuple[str, Tally]


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _grid(folder: Path, *options: str) -> Grid:
    folder.mkdir()
    grid = make_grid(folder, options=("--set", "eval_every=1", *options))
    assert grid.run(900) == 0, grid.said
    return grid


def _faults(folder: Path, kills: int, count: int, seed: int) -> Iterator[tuple[str, Callable[[], Tally]]]:
    """Yield each fault's name in the report, with a function that injects it."""
    fifth, tenth = max(1, kills // 5), max(1, kills // 10)

    def killed(grid: Grid, longest: float, count: int, **options: Any) -> Callable[[], Tally]:
        return lambda: kill_at_random(grid, Kills(count, seed, **options), longest, _say)

    one = _grid(folder / "one")
    seconds = usual_seconds(one) / 2
    yield "kill -9 at random moments", killed(one, seconds, kills)
    yield "kill -9 while a run is stored", killed(one, seconds, fifth, aimed=STORING)
    yield "SIGTERM at random moments", killed(one, seconds, fifth, number=signal.SIGTERM)
    yield "kill -9 of one of two commands that share a results folder", killed(one, seconds, fifth, at_once=2)
    for kind in ("runs", "history", "predictions"):
        yield f"one bit of a file in {kind}", partial(damage_bytes, one.results, kind, count, seed)
    two = _grid(folder / "two", "--jobs", "2")
    yield "kill -9 of a command with two worker processes", killed(two, usual_seconds(two) / 2, tenth)
    yield "kill -9 of a Dask cluster's workers", lambda: kill_workers_of_a_cluster(one, tenth, seed, _say)


def _report(rows: list[Row], arguments: argparse.Namespace, minutes: float) -> str:
    struck = [(phase, rows[0][1].phases[phase]) for phase in PHASES]
    lines = [
        "# Reliability",
        "",
        f"`python -m tests.faults.campaign --kills {arguments.kills} --bytes {arguments.bytes} "
        f"--seed {arguments.seed}`, {minutes:.0f} minutes",
        "",
        "A grid of four runs (linear, ship, vpt-deep and full; test_vit, 8 epochs with an evaluation and a checkpoint",
        "after each) starts in an empty results folder and is killed; the same command is repeated, and killed again,",
        "until it ends by itself. Every such grid must leave the records, histories, predictions and weights of an",
        "undisturbed grid (times and memory apart). No record may be written twice, and no claim, checkpoint or",
        "temporary file may remain. Moments are drawn from a seed; half of the signals go to the command's process",
        "alone, half to its process group.",
        "",
        "| fault | injected | refused with a sentence | grids | runs, each done once | lost |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, tally in rows:
        refused, grids, runs = (number or "-" for number in (tally.refused, tally.grids, tally.runs))
        lines.append(f"| {name} | {tally.faults} | {refused} | {grids} | {runs} | {len(tally.lost)} |")
    lines += ["", f"Phases that the {rows[0][1].faults} kills at random moments struck:", ""]
    lines += ["| phase | kills |", "| --- | --- |", *(f"| {phase} | {count} |" for phase, count in struck), ""]
    lost = [f"- {name}: {text}" for name, tally in rows for text in tally.lost]
    return "\n".join([*lines, *(["Lost:", "", *lost] if lost else ["Nothing was lost."]), ""])


def main() -> int:
    """Run the campaign and write its report; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--bytes", type=int, default=2000, help="bytes changed in each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("reports/reliability.md"))
    arguments = parser.parse_args()
    began, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory() as name:
        for fault, inject in _faults(Path(name), arguments.kills, arguments.bytes, arguments.seed):
            _say(fault)
            rows.append((fault, inject()))
            # After every row, so that an interrupted campaign keeps its counts.
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(_report(rows, arguments, (time.monotonic() - began) / 60))
    print(arguments.output.read_text())
    return 1 if any(tally.lost for _, tally in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
