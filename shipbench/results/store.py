"""Records on disk: parquet files written once, aside and then renamed; read back as pandas.

``runs/<run_id>.parquet`` holds one row, ``history/<run_id>.parquet`` a row per epoch and split, and
``predictions/<run_id>.parquet`` a row per evaluated image; ``weights/<run_id>.safetensors`` is the trained part.
The row in ``runs`` is written last: a run counts as done when, and only when, it is there. Until then
``checkpoints/<run_id>.safetensors`` may hold where it got to. Every parquet file carries a hash of its own bytes.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shipbench.errors import InputError, StoreError
from shipbench.record import RunRecord, as_text
from shipbench.results.sealed import read_row, unreadable, write_parquet
from shipbench.runtime.files import atomic_path

if TYPE_CHECKING:
    pass

EXPORT_FORMAT = "shipbench-weights-1"
KINDS = ("runs", "history", "predictions", "weights", "checkpoints")


@dataclass(frozen=True)
class RunTables:
    """What a finished run leaves besides its row: columns of equal length, by name."""

    history: Mapping[str, Any] = field(default_factory=dict)
    predictions: Mapping[str, Any] = field(default_factory=dict)


class Store:
    """A results folder."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def path(self, kind: str, run_id: str) -> Path:
        """Return where a run's ``runs``, ``history``, ``predictions``, ``weights`` or ``checkpoints`` file is."""
        suffix = "safetensors" if kind in ("weights", "checkpoints") else "parquet"
        return self.root / kind / f"{run_id}.{suffix}"

    def check_writable(self) -> None:
        """Raise ``InputError`` if the folder, or the one that it would be made in, cannot be written to."""
        folder = self.root / "runs"
        if as_text(str(self.root)) != str(self.root):
            raise InputError(f"results folder {self.root} cannot be used: its name is not UTF-8; give it another")
        try:
            while not folder.exists():
                folder = folder.parent
            # Not an empty file, which would fit on a full disk.
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(bytes(4096))
        except OSError as error:
            raise InputError(f"results folder {self.root} cannot be written to: {error.strerror}") from error

    def status(self, run_id: str) -> str | None:
        """Return ``"done"`` or ``"failed"``, or None if there is no record of the run."""
        record = self.read(run_id)
        return None if record is None else record.status

    def written(self, run_id: str) -> int | None:
        """Return a number that changes whenever a run's record is written, or None if there is none."""
        try:
            return self.path("runs", run_id).stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def read(self, run_id: str) -> RunRecord | None:
        """Return a run's record, if there is one; raises ``InputError`` for one that cannot be read."""
        path = self.path("runs", run_id)
        return to_record(path, read_row(path)) if path.exists() else None

    def write(self, record: RunRecord, tables: RunTables | None = None) -> None:
        """Store a run: its tables first, its row last, each file whole or not at all.

        Raises ``StoreError`` if the folder cannot be written to.
        """
        with self._writing():
            for kind, columns in (
                ("history", tables and tables.history),
                ("predictions", tables and tables.predictions),
            ):
                if columns:
                    write_parquet(self.path(kind, record.run_id), {"run_id": record.run_id, **columns})
            row = {key: [value] for key, value in record.to_row().items()}
            write_parquet(self.path("runs", record.run_id), row)

    def write_weights(self, run_id: str, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
        """Store the trained part of a run; raises ``StoreError`` if the folder cannot be written to."""
        from safetensors.torch import save

        with self._writing(), atomic_path(self.path("weights", run_id)) as temporary:
            # Not its save_file, which writes to a file of its own beside: a kill would leave that behind.
            temporary.write_bytes(save(dict(tensors), dict(metadata)))

    def remove(self, kind: str, run_id: str) -> None:
        """Remove a file of a run, if it is there and can be removed."""
        with suppress(OSError):
            self.path(kind, run_id).unlink()

    def sweep(self, run_id: str) -> None:
        """Remove what a process left half-written when it was killed; only for who has the run to itself."""
        with self._writing():
            for kind in KINDS:
                for part in (self.root / kind).glob(f".{run_id}.*.part"):
                    part.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        from safetensors import SafetensorError

        try:
            yield
        except (OSError, SafetensorError) as error:
            reason = _reason(error)
            raise StoreError(
                f"results folder {self.root} cannot be written to any more ({reason}); finished runs are kept, and the "
                "same command goes on when it can be"
            ) from error


def _reason(error: Exception) -> str:
    """Return the system's own words; safetensors and pyarrow have its number in the text."""
    number = re.search(r"(?:os error|errno) (\d+)", str(error))
    if number is not None:
        return os.strerror(int(number[1]))
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def to_record(path: Path, row: Mapping[str, Any]) -> RunRecord:
    """Return the record in a file's row; raises ``InputError`` for a row that is not the whole record of that run."""
    try:
        record = RunRecord.from_row(row)
    except (ValueError, TypeError, RecursionError) as error:
        raise unreadable(path, f"it is of another version: {error}") from error
    if record.run_id != path.stem:
        raise unreadable(path, f"it is the record of run {record.run_id}")
    return record
