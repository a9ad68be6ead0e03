"""Events of a grid as a person sees them: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from shipbench.planning.plan import PlannedRun
from shipbench.record import RunRecord
from shipbench.runtime.console import err_console, say
from shipbench.training.history import EpochReport


def outcome(record: RunRecord) -> str:
    """Say in a few words how a run ended."""
    if not record.done:
        return f"FAILED: {record.error}"
    score = f"test accuracy {100 * record.final_test_acc:.1f} %"
    if record.protocol != "final":
        score = f"validation accuracy {100 * record.val_acc:.1f} %"
    return f"{score}, {record.train_seconds + record.eval_seconds:.0f} s"


def describe_epoch(report: EpochReport) -> str:
    """Say in a few words how an epoch went."""
    speed = report.images / report.train_seconds
    text = f"epoch {report.epoch + 1}/{report.epochs}, loss {report.train_loss:.3f}, {speed:.0f} images/s"
    return text if report.evaluation is None else f"{text}, accuracy {100 * report.evaluation.accuracy:.1f} %"


class PlainReporter:
    """A line for every event that matters, on standard error."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.over = 0

    def __enter__(self) -> PlainReporter:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""

    def started(self, run: PlannedRun) -> None:
        """Print the run's title."""
        say(f"{run.run_id} {run.title}")

    def note(self, run: PlannedRun, text: str) -> None:
        """Print what the method says."""
        say(f"{run.run_id}   {text}")

    def epoch(self, run: PlannedRun, report: EpochReport) -> None:
        """Print every tenth of the epochs."""
        if (report.epoch + 1) % max(1, report.epochs // 10) == 0:
            say(f"{run.run_id}   {describe_epoch(report)}")

    def finished(self, run: PlannedRun, record: RunRecord) -> None:
        """Print the outcome."""
        self.over += 1
        say(f"{run.run_id} [{self.over}/{self.total}] {run.title}: {outcome(record)}")


class LiveReporter:
    """Progress bars: all runs, and the epochs of each run that is under way."""

    def __init__(self, total: int) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        self.progress = Progress(*columns, console=err_console())
        self.grid = self.progress.add_task("runs", total=total, detail="")
        self.bars: dict[str, TaskID] = {}

    def __enter__(self) -> LiveReporter:
        """Begin to draw."""
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self.progress.stop()

    def started(self, run: PlannedRun) -> None:
        """Add a bar."""
        epochs = run.spec.resolved.recipe.epochs
        # A run whose worker died begins again.
        if run.run_id in self.bars:
            self.progress.remove_task(self.bars[run.run_id])
        self.bars[run.run_id] = self.progress.add_task(run.title, total=epochs, detail="preparing")

    def note(self, run: PlannedRun, text: str) -> None:
        """Print above the bars what the method says."""
        self.progress.console.print(f"{run.title}: {text}")

    def epoch(self, run: PlannedRun, report: EpochReport) -> None:
        """Move the bar."""
        self.progress.update(self.bars[run.run_id], completed=report.epoch + 1, detail=describe_epoch(report))

    def finished(self, run: PlannedRun, record: RunRecord) -> None:
        """Take the bar away and print the outcome above the others."""
        bar = self.bars.pop(run.run_id, None)
        if bar is not None:
            self.progress.remove_task(bar)
        self.progress.advance(self.grid)
        self.progress.console.print(f"{run.title}: {outcome(record)}")


def make_reporter(total: int) -> PlainReporter | LiveReporter:
    """Return the reporter that suits standard error."""
    return LiveReporter(total) if err_console().is_terminal else PlainReporter(total)
