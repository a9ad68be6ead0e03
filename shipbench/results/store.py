"""Records on disk: parquet files written once, aside and then renamed; read back as pandas.

``runs/<run_id>.parquet`` holds one row, ``history/<run_id>.parquet`` a row per epoch and split, and
``predictions/<run_id>.parquet`` a row per evaluated image; ``weights/<run_id>.safetensors`` is the trained part.
The row in ``runs`` is written last: a run counts as done when, and only when, it is there. Until then
``checkpoints/<run_id>.safetensors`` may hold where it got to. Every parquet file carries a hash of its own bytes.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shipbench.errors import InputError, StoreError
from shipbench.results.sealed import as_frame, only_row, read_parquet, read_row, unreadable, write_parquet
from shipbench.runtime.cache import atomic_path

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_NAN = float("nan")
EXPORT_FORMAT = "shipbench-weights-1"
_ESSENTIAL = ("run_id", "status", "method", "task")
KINDS = ("runs", "history", "predictions", "weights", "checkpoints")


@dataclass(frozen=True)
class RunRecord:
    """Everything known of one run; accuracies are fractions in [0, 1], unknown numbers NaN.

    ``settings`` are written as flat ``cfg.*`` columns and again, as JSON, in the column ``config``. ``micro_batch`` is
    the number of images at a time in training after the device ran out of memory, 0 if it never did. ``stacked_runs``
    were trained together in one process: then the seconds are this run's equal share of theirs, and the memory is that
    of all of them.
    """

    run_id: str
    status: str
    method: str
    task: str
    group: str
    suite: str
    seed: int
    recipe: str
    protocol: str
    settings: Mapping[str, Any]
    backbone: str
    backbone_sha256: str
    checkpoint: str
    image_size: int
    data_fingerprint: str
    image_format: str
    num_classes: int
    precision: str
    device: str
    switches: str = ""
    overrides: str = ""
    error: str = ""
    created: str = ""
    shipbench_version: str = ""
    git_commit: str = ""
    python_version: str = ""
    torch_version: str = ""
    timm_version: str = ""
    numpy_version: str = ""
    pillow_version: str = ""
    sklearn_version: str = ""
    host: str = ""
    threads: int = 0
    n_train: int = 0
    n_test: int = 0
    trainable_params: int = 0
    trainable_params_without_head: int = 0
    total_params: int = 0
    flops_per_image: float = _NAN
    final_test_acc: float = _NAN
    best_test_acc: float = _NAN
    best_test_epoch: int = -1
    val_acc: float = _NAN
    chance_acc: float = _NAN
    train_loss: float = _NAN
    train_seconds: float = _NAN
    eval_seconds: float = _NAN
    train_images_per_second: float = _NAN
    eval_images_per_second: float = _NAN
    micro_batch: int = 0
    stacked_runs: int = 1
    peak_memory_bytes: int = 0
    levels: str = ""
    affinity: str = ""

    @property
    def done(self) -> bool:
        """Whether the run came to its end."""
        return self.status == "done"

    def to_row(self) -> dict[str, Any]:
        """Return the flat row that is stored."""
        row = asdict(self)
        settings = row.pop("settings")
        row["config"] = json.dumps(settings, sort_keys=True)
        row |= {f"cfg.{key}": _cell(value) for key, value in settings.items()}
        return {key: _as_text(value) if isinstance(value, str) else value for key, value in row.items()}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RunRecord:
        """Return the record of a stored row; columns of a newer version are left out.

        Raises ``ValueError`` for a column that is missing without a default, and for a value of another kind.
        """
        settings = json.loads(_typed("config", "str", row.get("config")))
        if not isinstance(settings, dict):
            raise ValueError("config is not a table of settings")
        values: dict[str, Any] = {"settings": settings}
        for column in fields(cls):
            absent = column.name not in row
            if column.name == "settings" or (absent and column.default is not MISSING):
                continue
            values[column.name] = _typed(column.name, str(column.type), row.get(column.name))
        if values["status"] not in ("done", "failed"):
            raise ValueError(f"status is {values['status']!r}, neither done nor failed")
        return cls(**values)


def _typed(name: str, kind: str, value: Any) -> Any:
    """Return a stored value as the record has it: parquet keeps an unknown number as null."""
    if kind == "float" and value is None:
        return _NAN
    allowed: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float)}
    if isinstance(value, bool) or not isinstance(value, allowed[kind]):
        raise ValueError(f"column {name} is {'missing' if value is None else repr(value)[:40]}, expected {kind}")
    return value


def _as_text(value: str) -> str:
    """Return text that can be stored: a file's name, and an error about it, may hold bytes that are no letters."""
    return value.encode(errors="backslashreplace").decode()


def _cell(value: Any) -> Any:
    """Sequences become text, so that a column has one type in every file; missing values stay missing."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value


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
        if _as_text(str(self.root)) != str(self.root):
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
        return _to_record(path, read_row(path)) if path.exists() else None

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


def _to_record(path: Path, row: Mapping[str, Any]) -> RunRecord:
    """Return the record in a file's row; raises ``InputError`` for a row that is not the whole record of that run."""
    try:
        record = RunRecord.from_row(row)
    except (ValueError, TypeError, RecursionError) as error:
        raise unreadable(path, f"it is of another version: {error}") from error
    if record.run_id != path.stem:
        raise unreadable(path, f"it is the record of run {record.run_id}")
    return record


def _record_table(path: Path) -> pa.Table:
    """Return the table of a record that may lack columns, as one from elsewhere does that was made into records."""
    table = read_parquet(path)
    _to_record(path, _blank_row() | only_row(path, table))
    return table


def _blank_row() -> dict[str, Any]:
    """Return what stands in for columns that a record from elsewhere may lack."""
    kinds: dict[str, Any] = {"str": "", "int": 0}
    names = {c.name: str(c.type) for c in fields(RunRecord) if c.default is MISSING and c.name != "settings"}
    return {"config": "{}"} | {name: kinds[kind] for name, kind in names.items() if name not in _ESSENTIAL}


def load_results(results: Path | str) -> pd.DataFrame:
    """Return every record of a results folder, one row per run, sorted by suite, method, task and seed.

    Records from elsewhere may lack columns, but not run_id, status, method and task. Raises ``InputError`` if the
    folder does not exist, and for a record that cannot be read.
    """
    folder = Path(results) / "runs"
    if not folder.is_dir():
        raise InputError(f"there are no results in {results}: it has no 'runs' folder")
    # Other systems leave hidden files of their own beside ours.
    files = [file for file in sorted(folder.glob("*.parquet")) if not file.name.startswith(".")]
    frame = as_frame([_record_table(file) for file in files], folder)
    if frame.empty:
        return frame
    defaults: dict[str, Any] = _blank_row() | {c.name: c.default for c in fields(RunRecord) if c.default is not MISSING}
    unknown = {
        name: default if isinstance(default, str) or name == "seed" else _NAN for name, default in defaults.items()
    }
    absent = {name: value for name, value in unknown.items() if name not in frame.columns}
    return frame.assign(**absent).sort_values(["suite", "method", "task", "seed", "run_id"], ignore_index=True)


def load_history(results: Path | str, run_ids: Iterable[str]) -> pd.DataFrame:
    """Return the histories of runs: run_id, epoch, split, loss, accuracy, learning_rate."""
    return _load_kind("history", results, run_ids)


def load_predictions(results: Path | str, run_ids: Iterable[str]) -> pd.DataFrame:
    """Return the predictions of runs: run_id, index, label, predicted, confidence."""
    return _load_kind("predictions", results, run_ids)


def _load_kind(kind: str, results: Path | str, run_ids: Iterable[str]) -> pd.DataFrame:
    store = Store(results)
    files = [path for run_id in run_ids if (path := store.path(kind, run_id)).exists()]
    return as_frame([read_parquet(file) for file in files], store.root / kind)
