"""``shipbench status``: the state of every run in a results folder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live

from shipbench.cli import next_steps
from shipbench.cli.documents import print_document
from shipbench.cli.layout import duration, make_table, printable
from shipbench.cli.options import Results
from shipbench.errors import InputError
from shipbench.runtime.console import out_console
from shipbench.runtime.interrupts import Terminated

if TYPE_CHECKING:
    from shipbench.results.folder_status import ActiveRun, FolderStatus, PendingRun, TrainedEpochs

_INTERVAL_SECONDS = 2.0
_MOST_ROWS = 20


def status(
    results: Results = Path("results"),
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; times are in seconds.")] = False,
) -> None:
    """Show finished, active, failed and pending runs, also while other processes or machines execute a grid."""
    if watch and as_json:
        raise InputError("--watch and --json cannot be combined; print JSON repeatedly with a loop of the shell")
    if watch:
        _watch(results)
        return
    state = _state(results)
    if as_json:
        print_document("status/1", **_as_json(state))
        return
    out_console().print(_page(state))
    next_steps.after_status(results, failed=bool(state.failed), coming=bool(state.active or state.pending))


def _watch(results: Path) -> None:
    """Refresh the display until the user interrupts it; without a terminal, print a line at every change."""
    state = _state(results)
    try:
        if not out_console().is_interactive:
            for line in _changes(results):
                print(line, flush=True)
            return
        with Live(_page(state), console=out_console(), auto_refresh=False) as live:
            while True:
                live.update(_page(_state(results)), refresh=True)
                time.sleep(_INTERVAL_SECONDS)
    except KeyboardInterrupt as stop:
        # Ctrl-C is how a user ends the display; a signal has its own exit code.
        if isinstance(stop, Terminated):
            raise


def _state(results: Path) -> FolderStatus:
    """Return the state of a results folder; the engine of a run in a cluster's queue says what the queue says."""
    from shipbench.engine.executors.slurm_queue import queue_of
    from shipbench.results.folder_status import folder_status

    state, queue = folder_status(results), queue_of(results)
    return replace(
        state,
        active=tuple(replace(run, engine=queue.get(run.run_id, run.engine)) for run in state.active),
        pending=tuple(replace(run, engine=queue.get(run.run_id, run.engine)) for run in state.pending),
    )


def _changes(results: Path) -> Iterator[str]:
    last = ""
    while True:
        line = summary(_state(results))
        if line != last:
            yield line
        last = line
        time.sleep(_INTERVAL_SECONDS)


def summary(state: FolderStatus) -> str:
    """Return the numbers of runs in one line."""
    numbers = (state.done, len(state.active), len(state.failed), len(state.pending))
    words = ("done", "under way", "failed", "to do")
    return ", ".join(f"{number} {word}" for number, word in zip(numbers, words, strict=True))


def _page(state: FolderStatus) -> RenderableType:
    """Return the summary and a table for each state that has runs."""
    failed = [(run.run_id, run.title, run.error) for run in state.failed]
    unsealed = [(run.run_id, run.title) for run in state.unsealed]
    tables = (
        _active_table(state),
        _short_table(("run", "failed", "error"), failed),
        _short_table(("run", "unsealed: shipbench run refuses it"), unsealed),
        _pending_table(state),
    )
    return Group(summary(state), *(table for table in tables if table is not None))


def _active_table(state: FolderStatus) -> RenderableType | None:
    if not state.active:
        return None
    table = make_table("run", "under way", "epoch", "pace", "left", "by", "engine")
    for run in state.active:
        left = "" if run.seconds_left is None else duration(run.seconds_left)
        cells = (run.run_id, run.title, _epoch(run.trained), _pace(run.trained), left)
        table.add_row(*map(printable, (*cells, _process(run), run.engine)))
    return table


def _short_table(header: Sequence[str], rows: Sequence[tuple[str, ...]]) -> RenderableType | None:
    """Return a table of the first rows and the number of the others."""
    if not rows:
        return None
    table = make_table(*header)
    for row in rows[:_MOST_ROWS]:
        table.add_row(*map(printable, row))
    if len(rows) > _MOST_ROWS:
        table.add_row(f"{len(rows) - _MOST_ROWS} more", *[""] * (len(header) - 1))
    return table


def _pending_table(state: FolderStatus) -> RenderableType | None:
    """Return the runs to do by method, and each interrupted run on its own."""
    if not state.pending:
        return None
    table = make_table("to do", "tasks", "engine")
    waiting = [run for run in state.pending if run.trained is None]
    groups = Counter((run.method, run.engine) for run in waiting)
    for (method, engine), number in groups.items():
        tasks = dict.fromkeys(run.task for run in waiting if (run.method, run.engine) == (method, engine))
        table.add_row(*map(printable, (f"{number} x {method}", ", ".join(tasks), engine)))
    for run in state.pending:
        if run.trained is not None:
            table.add_row(*map(printable, (_interrupted(run), run.task, run.engine)))
    return table


def _interrupted(run: PendingRun) -> str:
    return f"{run.title or run.run_id}: interrupted after epoch {_epoch(run.trained)}"


def _epoch(trained: TrainedEpochs | None) -> str:
    return "starting" if trained is None else f"{trained.epochs}/{trained.of}"


def _pace(trained: TrainedEpochs | None) -> str:
    return "" if trained is None else f"{trained.seconds_per_epoch:.3g} s/epoch"


def _process(run: ActiveRun) -> str:
    return "another process" if run.pid is None else f"{run.host}, process {run.pid}"


def _as_json(state: FolderStatus) -> dict[str, Any]:
    content = asdict(state)
    counts = {"done": state.done, "under_way": len(state.active), "failed": len(state.failed)}
    return {
        **counts,
        "to_do": len(state.pending),
        "runs_under_way": content["active"],
        "runs_failed": content["failed"],
        "runs_to_do": content["pending"],
        "runs_unsealed": content["unsealed"],
    }
