"""Weights & Biases: a run of shipbench is the run with the same id."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shipbench.errors import InputError, one_line
from shipbench.runtime.plug_ins import missing_library
from shipbench.trackers.interface import PROJECT, Outcome, TrackedRun, TrackerOptions
from shipbench.trackers.registry import require_library

_INTERRUPTED = 130
_REMEDY = "run 'wandb login', or set WANDB_MODE=offline"


class WandbTracker:
    """Sends runs to the project in ``WANDB_PROJECT``, or "shipbench"; ``WANDB_MODE=offline`` needs no account."""

    def __init__(self, options: TrackerOptions) -> None:
        self.folder = Path(os.environ.get("WANDB_DIR") or options.results)
        self.project = os.environ.get("WANDB_PROJECT") or PROJECT
        self.mode: Any = os.environ.get("WANDB_MODE") or None
        self.url = ""

    @property
    def offline(self) -> bool:
        """Whether runs need no account: offline, or disabled."""
        return self.mode not in (None, "online", "run", "shared")

    @property
    def where(self) -> str:
        """The address of the project, or the command that sends offline runs."""
        if self.mode == "disabled":
            return "the mode 'disabled' sends and keeps nothing"
        if not self.offline:
            return self.url or f"project {self.project!r}"
        return f"wandb sync {shlex.quote(str(self.folder))}/wandb/offline-*"

    @staticmethod
    def why_unusable() -> str:
        """Return that wandb is missing, or an empty string."""
        return missing_library("wandb")

    def check(self) -> None:
        """Raise ``InputError`` if wandb is not installed, or not logged in although it is to go online."""
        require_library("wandb", "wandb")
        if self.offline:
            return
        import wandb

        try:
            # Files hold what "wandb offline" and "wandb disabled" have set.
            self.mode = self.mode or wandb.setup().settings.mode
            # In a terminal, the library would ask for an account.
            logged_in = self.offline or wandb.login(prompt=False)
        except Exception as error:
            raise InputError(f"--track wandb cannot log in ({one_line(error, 120)}); {_REMEDY}") from error
        if not logged_in:
            raise InputError(f"--track wandb is not logged in; {_REMEDY}")

    def open(self, run: TrackedRun) -> _WandbRun:
        """Start the run with this id, or continue it."""
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        handle = wandb.init(
            project=self.project,
            id=run.run_id,
            name=run.title,
            config=dict(run.config),
            dir=self.folder,
            mode=self.mode,
            # wandb offline warns about any other value, because it cannot look the run up.
            resume=None if run.fresh or self.offline else "allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        handle.define_metric("epoch")
        handle.define_metric("*", step_metric="epoch")
        self.url = "" if self.offline else handle.project_url or ""
        return _WandbRun(handle)


class _WandbRun:
    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.notes: list[str] = []

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        self.handle.log({**values, "epoch": epoch}, step=epoch)

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.handle.notes = "\n".join(self.notes)

    def finish(self, outcome: Outcome) -> None:
        import wandb

        record = outcome.record
        self.handle.summary.update({**outcome.numbers, "status": record.status, "error": record.error})
        artifact = wandb.Artifact(f"record-{record.run_id}", type="record")
        for file in outcome.files:
            artifact.add_file(str(file), name=f"{file.parent.name}/{file.name}")
        self.handle.log_artifact(artifact)
        figures = {f"figures/{name}": wandb.Image(image) for name, image in outcome.figures().items()}
        if figures:
            self.handle.log(figures)
        self.handle.finish(exit_code=0 if record.done else 1)

    def close(self) -> None:
        self.handle.mark_preempting()
        self.handle.finish(exit_code=_INTERRUPTED)
