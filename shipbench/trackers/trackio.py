"""Trackio: a run of shipbench is the run whose name is its id."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from contextvars import Context
from typing import Any
from urllib.parse import urlsplit

from shipbench.runtime.plug_ins import missing_library
from shipbench.trackers.interface import PROJECT, Outcome, TrackedRun, TrackerOptions
from shipbench.trackers.registry import require_library


class TrackioTracker:
    """Writes runs into the project in ``TRACKIO_PROJECT``, or "shipbench": in the local folder, or, as trackio reads
    from its environment, in the Space ``TRACKIO_SPACE_ID`` or on the server ``TRACKIO_SERVER_URL``.
    """

    def __init__(self, options: TrackerOptions) -> None:
        self.project = os.environ.get("TRACKIO_PROJECT") or PROJECT

    @property
    def where(self) -> str:
        """The Space or the server with the runs, or the command that shows local ones."""
        if space := os.environ.get("TRACKIO_SPACE_ID"):
            return f"project {self.project!r} in the Space {space}"
        if server := os.environ.get("TRACKIO_SERVER_URL"):
            return f"project {self.project!r} at {_without_token(server)}"
        return f"trackio show --project {shlex.quote(self.project)}"

    @staticmethod
    def why_unusable() -> str:
        """Return that trackio is missing, or an empty string."""
        return missing_library("trackio")

    def check(self) -> None:
        """Raise ``InputError`` if trackio is not installed."""
        require_library("trackio", "trackio")

    def open(self, run: TrackedRun) -> _TrackioRun:
        """Start the run of this name, or continue it."""
        # In a context of its own, because trackio ends the current run when another one starts.
        return _TrackioRun(Context().run(self._init, run), run)

    def _init(self, run: TrackedRun) -> Any:
        import trackio

        return trackio.init(
            project=self.project,
            name=run.run_id,
            config={"title": run.title, **run.config},
            resume="never" if run.fresh else "allow",
            embed=False,
        )


def _without_token(url: str) -> str:
    """Return the address of a server without the token that its query may hold, and without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


class _TrackioRun:
    def __init__(self, handle: Any, run: TrackedRun) -> None:
        self.handle = handle
        self.epoch = 0

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        self.epoch = epoch
        self.handle.log(dict(values), step=epoch)

    def note(self, text: str) -> None:
        self.handle.log({"note": text}, step=self.epoch)

    def finish(self, outcome: Outcome) -> None:
        import trackio

        record = outcome.record
        final = {f"final/{name}": value for name, value in outcome.numbers.items()}
        self.handle.log({**final, "status": record.status, "error": record.error}, step=self.epoch)
        artifact = trackio.Artifact(f"record-{record.run_id}", type="record")
        for file in outcome.files:
            artifact.add_file(str(file), name=f"{file.parent.name}/{file.name}")
        self.handle.log_artifact(artifact)
        figures = {f"figures/{name}": trackio.Image(image) for name, image in outcome.figures().items()}
        if figures:
            self.handle.log(figures, step=self.epoch)
        self.close()

    def close(self) -> None:
        self.handle.finish()
