"""Show the events of a plan: progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from shipbench.cli.documents import JSON_LINES, print_event
from shipbench.events import EpochDone, Event, Finished, Listener, Lost, Note, Started
from shipbench.planning.plan import PlannedRun
from shipbench.record import RunRecord
from shipbench.runs.event_text import LOST, describe_epoch, is_tenth, outcome
from shipbench.runtime.console import err_console, say


class _Lines:
    """A display of lines, each of which is printed at once."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self.runs = {run.run_id: run for run in runs}
        self.finished = 0


class PlainDisplay(_Lines):
    """A listener that prints a line for every event that matters, on standard error."""

    def __call__(self, event: Event, /) -> None:
        """Print an event; of the epochs, print every tenth part."""
        match event:
            case Started(run_id):
                say(f"{run_id} {self.runs[run_id].title}")
            case Note(str(run_id), text):
                say(f"{run_id}   {text}")
            case Note(_, text):
                say(text)
            case EpochDone(run_id):
                if is_tenth(event):
                    say(f"{run_id}   {describe_epoch(event)}")
            case Lost(run_id):
                say(f"{run_id}   {LOST}")
            case Finished(run_id, record):
                self.finished += 1
                say(f"{run_id} [{self.finished}/{len(self.runs)}] {self.runs[run_id].title}: {outcome(record)}")


class LiveDisplay:
    """A listener that draws a progress bar for the plan and one for the epochs of each active run."""

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        self.runs = {run.run_id: run for run in runs}
        self.progress = Progress(*columns, console=err_console())
        self.plan_bar = self.progress.add_task("runs", total=len(runs), detail="")
        self.bars: dict[str, TaskID] = {}

    def __enter__(self) -> LiveDisplay:
        """Start to draw."""
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing."""
        self.progress.stop()

    def __call__(self, event: Event, /) -> None:
        """Move the bars; print notes and outcomes above them."""
        match event:
            case Started(run_id):
                self._add_bar(self.runs[run_id])
            case Note(str(run_id), text):
                self._print(run_id, text)
            case Note(_, text):
                self.progress.console.print(text)
            case EpochDone(run_id):
                self.progress.update(self.bars[run_id], completed=event.epoch + 1, detail=describe_epoch(event))
            case Lost(run_id):
                self._remove_bar(run_id)
                self._print(run_id, LOST)
            case Finished(run_id, record):
                self._remove_bar(run_id)
                self.progress.advance(self.plan_bar)
                self._print(run_id, outcome(record))

    def _add_bar(self, run: PlannedRun) -> None:
        # A run whose worker died starts again.
        self._remove_bar(run.run_id)
        epochs = run.spec.resolved.recipe.epochs
        self.bars[run.run_id] = self.progress.add_task(run.title, total=epochs, detail="preparing")

    def _remove_bar(self, run_id: str) -> None:
        bar = self.bars.pop(run_id, None)
        if bar is not None:
            self.progress.remove_task(bar)

    def _print(self, run_id: str, text: str) -> None:
        self.progress.console.print(f"{self.runs[run_id].title}: {text}")


class JsonDisplay(_Lines):
    """A listener that prints every event as a JSON line on standard error."""

    def __call__(self, event: Event, /) -> None:
        """Print an event."""
        match event:
            case Started(run_id):
                print_event("started", run_id=run_id, title=self.runs[run_id].title)
            case Note(run_id, text):
                print_event("note", run_id=run_id, text=text)
            case EpochDone():
                _print_epoch(event)
            case Lost(run_id):
                print_event("lost", run_id=run_id)
            case Finished(run_id, record):
                self.finished += 1
                _print_end(record, self.finished, len(self.runs))


def _print_epoch(event: EpochDone) -> None:
    print_event(
        "epoch",
        run_id=event.run_id,
        epoch=event.epoch + 1,
        epochs=event.epochs,
        train_loss=event.train_loss,
        learning_rate=event.learning_rate,
        images_per_second=event.images / event.train_seconds,
        accuracy=event.accuracy,
    )


def _print_end(record: RunRecord, finished: int, runs: int) -> None:
    print_event(
        "finished",
        run_id=record.run_id,
        status=record.status,
        error=record.error,
        final_test_acc=record.final_test_acc,
        val_acc=record.val_acc,
        finished=finished,
        runs=runs,
    )


def make_display(runs: Sequence[PlannedRun], progress: str = "auto") -> AbstractContextManager[Listener]:
    """Return the display of a plan's chosen runs: ``progress`` is json, plain, or auto for what suits the terminal."""
    if progress == JSON_LINES:
        return nullcontext(JsonDisplay(runs))
    if progress == "plain" or not err_console().is_interactive:
        return nullcontext(PlainDisplay(runs))
    return LiveDisplay(runs)
