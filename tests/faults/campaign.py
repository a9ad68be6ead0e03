"""Kill a grid at random points, damage its files, and count what was lost: ``python -m tests.faults.campaign``."""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from shipbench.errors import ShipbenchError
from shipbench.store import load_history, load_predictions, load_results
from tests.data.builders import vtab_tree
from tests.faults.grids import Grid, differences, leftovers, written


@dataclass
class Tally:
    """What was injected, how many grids were brought to their end, and what was lost."""

    faults: int = 0
    grids: int = 0
    runs: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)


def make_grid(folder: Path, **changes: object) -> Grid:
    """Return a grid over a new data folder."""
    data = vtab_tree(folder / "data", tasks=("dtd",), n_train=20, n_test=12)
    return replace(Grid(data, folder / "cache", folder / "undisturbed"), **changes)


def kill_at_random(grid: Grid, kills: int, seed: int, fault: signal.Signals = signal.SIGKILL) -> Tally:
    """Carry out ``grid`` in new folders, over and over, until so many of its processes were killed."""
    began = time.monotonic()
    assert grid.run() == 0, grid.log.read_text()
    usual = time.monotonic() - began
    chance, tally = random.Random(seed), Tally()
    while tally.faults < kills:
        disturbed = replace(grid, results=grid.results.with_name(f"disturbed-{tally.grids}"))
        _until_done(disturbed, usual, chance, kills, fault, tally)
        tally.lost += differences(disturbed.results, grid.results)
        tally.lost += [f"left behind: {name}" for name in leftovers(disturbed.results)]
        tally.grids += 1
        tally.runs += len(written(disturbed.results))
        shutil.rmtree(disturbed.results)
    return tally


def _until_done(
    grid: Grid, usual: float, chance: random.Random, kills: int, fault: signal.Signals, tally: Tally
) -> None:
    before: dict[str, int] = {}
    while True:
        command = grid.start()
        if tally.faults < kills:
            command.process.join(chance.uniform(0, usual))
        killed = tally.faults < kills and command.process.is_alive()
        if killed:
            command.send(fault)
            tally.faults += 1
        code = command.wait()
        after = written(grid.results)
        tally.lost += [f"record {run} was written twice" for run in before if after.get(run) != before[run]]
        before = after
        if code == 0:
            return
        if not killed:
            tally.lost.append(f"a command that was not killed ended with {code}")
            return


def damage_bytes(results: Path, kind: str, count: int, seed: int) -> Tally:
    """Change single bytes of one parquet file and read it: it must be refused, or be what it was."""
    chance, tally = random.Random(seed), Tally()
    path = sorted((results / kind).glob("*.parquet"))[0]
    load: dict[str, Callable[[], pd.DataFrame]] = {
        "runs": lambda: load_results(results),
        "history": lambda: load_history(results, [path.stem]),
        "predictions": lambda: load_predictions(results, [path.stem]),
    }
    whole, content = load[kind](), path.read_bytes()
    try:
        for place in chance.sample(range(len(content)), min(count, len(content))):
            damaged = bytearray(content)
            damaged[place] ^= 1 << chance.randrange(8)
            path.write_bytes(bytes(damaged))
            _read_damaged(load[kind], whole, f"byte {place} of {kind}", tally)
    finally:
        path.write_bytes(content)
    return tally


def _read_damaged(load: Callable[[], pd.DataFrame], whole: pd.DataFrame, what: str, tally: Tally) -> None:
    tally.faults += 1
    try:
        if not load().equals(whole):
            tally.lost.append(f"{what} was changed and nobody noticed")
    except ShipbenchError:
        tally.refused += 1
    except Exception as error:
        tally.lost.append(f"{what} was changed, and reading ended with {type(error).__name__}: {error}")


def _report(rows: list[tuple[str, Tally]], arguments: argparse.Namespace) -> str:
    lines = [
        "# Reliability",
        "",
        f"`python -m tests.faults.campaign --kills {arguments.kills} --bytes {arguments.bytes} "
        f"--seed {arguments.seed}`",
        "",
        "A grid of four methods (test_vit, 8 epochs, a checkpoint after every epoch) is killed at random points and",
        "the same command is started again, until it is done. Then every record, history, prediction and weight is",
        "compared with those of an undisturbed grid (times apart), and no record may have been written twice.",
        "",
        "| fault | injected | refused with a sentence | grids | runs | lost |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, tally in rows:
        refused = str(tally.refused) if tally.refused else "-"
        lines.append(f"| {name} | {tally.faults} | {refused} | {tally.grids} | {tally.runs} | {len(tally.lost)} |")
    lost = [f"- {name}: {text}" for name, tally in rows for text in tally.lost]
    return "\n".join([*lines, "", *(["Lost:", "", *lost] if lost else ["Nothing was lost."]), ""])


def main() -> int:
    """Run the campaign and write its report; exits with 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--bytes", type=int, default=2000, help="bytes changed in each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("reports/reliability.md"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        grid = make_grid(Path(name))
        rows = [("kill -9, one process", kill_at_random(grid, arguments.kills, arguments.seed))]
        for kind in ("runs", "history", "predictions"):
            rows.append((f"one bit of {kind}", damage_bytes(grid.results, kind, arguments.bytes, arguments.seed)))
        (Path(name) / "two").mkdir()
        pair = make_grid(Path(name) / "two", options=("--jobs", "2"))
        kills = max(1, arguments.kills // 10)
        rows.append(("kill -9, two workers", kill_at_random(pair, kills, arguments.seed)))
        again = replace(pair, results=pair.results.with_name("terminated"))
        rows.append(("SIGTERM, two workers", kill_at_random(again, kills, arguments.seed, signal.SIGTERM)))
    text = _report(rows, arguments)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text)
    print(text)
    return 1 if any(tally.lost for _, tally in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
