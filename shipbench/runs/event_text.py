"""Events as lines of text."""

from __future__ import annotations

from shipbench.events import EpochDone, Event, Finished, Lost, Note, Started
from shipbench.record import RunRecord

LOST = "was taken over by another process"


def print_progress(event: Event) -> None:
    """Print an event of ``shipbench.run`` as a line, in a notebook or a script; of the epochs, every tenth part."""
    line = _line(event)
    if line:
        print(line, flush=True)


def _line(event: Event) -> str:
    match event:
        case Started(run_id):
            return f"run {run_id}"
        case Note(_, text):
            return f"  {text}"
        case EpochDone() if is_tenth(event):
            return f"  {describe_epoch(event)}"
        case Lost():
            return f"  {LOST}"
        case Finished(_, record):
            return f"  {outcome(record)}"
    return ""


def is_tenth(event: EpochDone) -> bool:
    """Return whether the epoch completes another tenth of the training."""
    return (event.epoch + 1) % max(1, event.epochs // 10) == 0


def outcome(record: RunRecord) -> str:
    """Return a short description of a run's outcome."""
    if not record.done:
        return f"FAILED: {record.error}"
    score = f"test accuracy {100 * record.final_test_acc:.1f} %"
    if record.protocol != "final":
        score = f"validation accuracy {100 * record.val_acc:.1f} %"
    return f"{score}, {record.train_seconds + record.eval_seconds:.0f} s"


def describe_epoch(event: EpochDone) -> str:
    """Return a short description of an epoch."""
    speed = event.images / event.train_seconds
    text = f"epoch {event.epoch + 1}/{event.epochs}, loss {event.train_loss:.3f}, {speed:.0f} images/s"
    return text if event.accuracy is None else f"{text}, accuracy {100 * event.accuracy:.1f} %"
