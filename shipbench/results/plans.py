"""Plans under way: ``plans/<id>.json`` in the results folder, from the start of a grid until all its runs have ended.

A plan tells other processes which runs are still to come, and on which engine. Nothing depends on it: without it, a
grid executes the same runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from shipbench.record import time_now
from shipbench.results.lookup import visible_files
from shipbench.results.store import Store, writing
from shipbench.runtime.files import atomic_path
from shipbench.runtime.process_identity import ProcessIdentity, current_process, is_running

FORMAT = "shipbench-plan-1"


@dataclass(frozen=True)
class PlanEntry:
    """A run of a plan: its id, a short description, and what identifies it in tables.

    ``record_version`` identifies the record that the run repeats (``Store.written``); it is None if there was none.
    """

    run_id: str
    title: str
    method: str
    task: str
    seed: int
    epochs: int
    record_version: int | None = None


@dataclass(frozen=True)
class PlanNote:
    """The runs that a ``command`` has set out to execute, with the engine and the time (ISO 8601, UTC)."""

    engine: str
    command: ProcessIdentity
    created: str
    runs: tuple[PlanEntry, ...]

    @property
    def is_under_way(self) -> bool | None:
        """Whether the command is still running, or None if that cannot be known from here."""
        return is_running(self.command)


def write_plan(results: Path | str, engine: str, runs: Sequence[PlanEntry]) -> Path:
    """Store the plan of this process and return its file; the same runs always have the same file.

    Raises ``StoreError`` if the results folder cannot be written to.
    """
    note = PlanNote(engine, current_process(), time_now(), tuple(runs))
    digest = hashlib.sha256("\n".join(sorted(run.run_id for run in runs)).encode()).hexdigest()
    path = Path(results) / "plans" / f"{digest[:16]}.json"
    with writing(Path(results)), atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"format": FORMAT, **asdict(note)}, indent=1) + "\n", encoding="utf-8")
    return path


def remove_ended(results: Path | str) -> None:
    """Remove every plan whose runs have all ended: those of killed processes whose runs another one has executed.

    A run that repeats another has ended with its new record, or with the command: no later one continues it.
    """
    store = Store(results)
    for path in visible_files(Path(results) / "plans", ".json"):
        note = _read(path)
        if note is not None and all(_has_ended(run, note, store) for run in note.runs):
            path.unlink(missing_ok=True)


def _has_ended(run: PlanEntry, note: PlanNote, store: Store) -> bool:
    written = store.written(run.run_id)
    return written is not None and (written != run.record_version or note.is_under_way is False)


def load_plans(results: Path | str) -> list[PlanNote]:
    """Return every readable plan of a results folder, the newest first."""
    notes = (_read(path) for path in visible_files(Path(results) / "plans", ".json"))
    return sorted((note for note in notes if note is not None), key=lambda note: note.created, reverse=True)


def _read(path: Path) -> PlanNote | None:
    """Return a plan, or None if it is none or has been removed since its folder was listed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            return None
        runs, command = tuple(PlanEntry(**run) for run in content["runs"]), ProcessIdentity(**content["command"])
        return PlanNote(**{**content, "command": command, "runs": runs})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
