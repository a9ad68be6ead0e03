"""The results folder: one set of files per run, each written atomically.

``runs/<run_id>.parquet`` holds the record as one row, ``history/<run_id>.parquet`` a row per epoch and split,
``predictions/<run_id>.parquet`` a row per evaluated image and ``weights/<run_id>.safetensors`` the trained tensors. The
record is written last, so a run has ended if and only if it has a record. Until then
``checkpoints/<run_id>.safetensors`` may hold its progress. Every Parquet file carries a hash of its own bytes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shipbench.errors import InputError, StoreError, one_line, system_reason
from shipbench.record import ELSEWHERE, SHIPBENCH, UNSEALED, RunRecord, as_text, is_null, record_columns
from shipbench.results.sealed import StoredRow, read_row, unreadable, write_parquet
from shipbench.runtime.files import atomic_path, look_up_anew

EXPORT_FORMAT = "shipbench-weights-1"
KINDS = ("runs", "history", "predictions", "weights", "features", "checkpoints")


@dataclass(frozen=True)
class RunTables:
    """The tables of a finished run beside its record, as columns of equal length by name."""

    history: Mapping[str, Any] = field(default_factory=dict)
    predictions: Mapping[str, Any] = field(default_factory=dict)


class Store:
    """A results folder."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def path(self, kind: str, run_id: str) -> Path:
        """Return the path of a run's file of one of the ``KINDS``."""
        suffix = "safetensors" if kind in ("weights", "checkpoints") else "parquet"
        return self.root / kind / f"{run_id}.{suffix}"

    def check_writable(self) -> None:
        """Raise ``InputError`` if the folder, or the nearest existing folder above it, cannot be written to."""
        folder = self.root / "runs"
        if as_text(str(self.root)) != str(self.root):
            raise InputError(f"results folder {self.root} cannot be used: its name is not UTF-8; choose another")
        try:
            # A link to a disk that is not mounted exists, but not what it names.
            while not os.path.lexists(folder):
                folder = folder.parent
            # An empty file would fit even on a full disk.
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(bytes(4096))
        except OSError as error:
            raise InputError(f"results folder {self.root} cannot be written to: {system_reason(error)}") from error

    def status(self, run_id: str) -> str | None:
        """Return ``"done"`` or ``"failed"``, or None if the run has no record."""
        record = self.read(run_id)
        return None if record is None else record.status

    def refresh(self, run_id: str) -> None:
        """See the records that other machines have stored; raise ``StoreError`` if the folder cannot be written to.

        A process that was killed here leaves a temporary file of the run.
        """
        with writing(self.root):
            look_up_anew(self.path("runs", run_id))

    def written(self, run_id: str) -> int | None:
        """Return a number that changes whenever the record of a run is written, or None if it has no record.

        On a network file system, a record of another machine may be missing until ``refresh``.
        """
        try:
            return self.path("runs", run_id).stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def read(self, run_id: str) -> RunRecord | None:
        """Return the record of a run, or None if it has none.

        Raises ``InputError`` if the record cannot be read, or if shipbench made it and its seal is missing: another
        program has written it again, and no run may be skipped on its account.
        """
        path = self.path("runs", run_id)
        if not path.exists():
            return None
        record = to_record(path, read_row(path))
        if record.origin == UNSEALED:
            raise unreadable(path, "its seal is missing, so another program has written it")
        return record

    def write(self, record: RunRecord, tables: RunTables | None = None) -> None:
        """Store a run, its tables first and its record last; each file is written atomically.

        Raises ``StoreError`` if the folder cannot be written to.
        """
        tables = tables or RunTables()
        with writing(self.root):
            for kind, columns in (("history", tables.history), ("predictions", tables.predictions)):
                if columns:
                    write_parquet(self.path(kind, record.run_id), {"run_id": record.run_id, **columns})
            row = {key: [value] for key, value in record.to_row().items()}
            write_parquet(self.path("runs", record.run_id), row)

    def write_weights(self, run_id: str, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
        """Store the trained tensors of a run; raises ``StoreError`` if the folder cannot be written to."""
        from safetensors.torch import save

        with writing(self.root), atomic_path(self.path("weights", run_id)) as temporary:
            # safetensors' save_file would write to a temporary file of its own, which a killed process leaves behind.
            temporary.write_bytes(save(dict(tensors), dict(metadata)))

    def write_features(self, run_id: str, columns: Mapping[str, Any]) -> None:
        """Store the features of a run's test images; raises ``StoreError`` if the folder cannot be written to."""
        with writing(self.root):
            write_parquet(self.path("features", run_id), {"run_id": run_id, **columns})

    def remove(self, kind: str, run_id: str) -> None:
        """Remove a file of a run if it exists and can be removed."""
        with suppress(OSError):
            self.path(kind, run_id).unlink()

    def sweep(self, run_id: str) -> None:
        """Remove temporary files that a killed process left of a run; only the holder of its claim may call this."""
        with writing(self.root):
            for kind in KINDS:
                for part in (self.root / kind).glob(f".{run_id}.*.part"):
                    part.unlink(missing_ok=True)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Raise ``StoreError`` if the block cannot write to the results folder ``root``."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"results folder {root} cannot be written to any more ({system_reason(error)}); finished runs are kept, so "
            "run the same command again once it is writable"
        ) from error


def to_record(path: Path, row: StoredRow) -> RunRecord:
    """Return the record in a file's row; one without a seal may lack columns, and its origin says so.

    Raises ``InputError`` if the row is not a complete record of that run.
    """
    try:
        if row.sealed:
            record = RunRecord.from_row(row.values)
        else:
            record = RunRecord.from_row(with_blanks(row.values))
            record = replace(record, origin=_origin_without_seal(record))
    except (ValueError, TypeError, RecursionError) as error:
        raise unreadable(path, f"it is of another version: {one_line(error)}") from error
    if record.run_id != path.stem:
        raise unreadable(path, f"it is the record of run {record.run_id}")
    return record


def with_blanks(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``row`` with a blank for every absent or null column that a record of another program may lack."""
    blanks = {column.name: column.blank for column in record_columns() if "store" not in column.required_by}
    return blanks | {name: value for name, value in row.items() if not is_null(value)}


def _origin_without_seal(record: RunRecord) -> str:
    """Return the origin of a record without a seal: only its own version columns show that shipbench made it."""
    if record.shipbench_version or record.git_commit:
        return UNSEALED
    return ELSEWHERE if record.origin in ("", SHIPBENCH) else record.origin
