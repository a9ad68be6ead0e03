"""TensorBoard: event files in the folder ``tensorboard`` of the results, one folder for each run id."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shipbench.runtime.plug_ins import missing_library
from shipbench.trackers.interface import Outcome, TrackedRun, TrackerOptions
from shipbench.trackers.registry import require_library


class TensorboardTracker:
    """Writes event files that ``tensorboard --logdir`` shows."""

    def __init__(self, options: TrackerOptions) -> None:
        self.folder = options.results / "tensorboard"

    @property
    def where(self) -> str:
        """The command that shows the runs."""
        return f"tensorboard --logdir {shlex.quote(str(self.folder))}"

    @staticmethod
    def why_unusable() -> str:
        """Return that tensorboard is missing, or an empty string."""
        return missing_library("tensorboard")

    def check(self) -> None:
        """Raise ``InputError`` if tensorboard is not installed."""
        require_library("tensorboard", "tensorboard")

    def open(self, run: TrackedRun) -> _TensorboardRun:
        """Start a folder for the run, or continue the one of its id."""
        folder = self.folder / run.run_id
        if run.fresh:
            shutil.rmtree(folder, ignore_errors=True)
        return _TensorboardRun(folder, run)


class _TensorboardRun:
    """A run whose event file begins with its first event, so that it replaces what earlier files say from there on."""

    def __init__(self, folder: Path, run: TrackedRun) -> None:
        self.folder = folder
        self.run = run
        self.writer: Any = None
        self.epoch = 0
        self.notes: list[str] = []

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        self.epoch = epoch
        writer = self._opened()
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finish(self, outcome: Outcome) -> None:
        import numpy as np

        record, writer = outcome.record, self._opened()
        writer.add_text("outcome", record.error or record.status, self.epoch)
        for name, value in outcome.numbers.items():
            writer.add_scalar(f"final/{name}", value, self.epoch)
        for file in outcome.files:
            shutil.copyfile(file, self.folder / f"{file.parent.name}.parquet")
        for name, image in outcome.figures().items():
            writer.add_image(f"figures/{name}", np.asarray(image.convert("RGB")), self.epoch, dataformats="HWC")
        self.close()

    def close(self) -> None:
        if self.writer is None:
            return
        if self.notes:
            self.writer.add_text("notes", "\n\n".join(self.notes), self.epoch)
        self.writer.close()

    def _opened(self) -> Any:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=self.epoch or None)
            table = ["| setting | value |", "| --- | --- |"]
            table += [f"| {name} | {value} |" for name, value in {"title": self.run.title, **self.run.config}.items()]
            self.writer.add_text("config", "\n".join(table), self.epoch)
        return self.writer
