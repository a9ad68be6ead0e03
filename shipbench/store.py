"""Records on disk: parquet files written once, aside and then renamed; read back as pandas.

``runs/<run_id>.parquet`` holds one row, ``history/<run_id>.parquet`` a row per epoch and split, and
``predictions/<run_id>.parquet`` a row per evaluated image; ``weights/<run_id>.safetensors`` is the trained part.
The row in ``runs`` is written last: a run counts as done when, and only when, it is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shipbench.cache import atomic_path
from shipbench.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_NAN = float("nan")
EXPORT_FORMAT = "shipbench-weights-1"


@dataclass(frozen=True)
class RunRecord:
    """Everything known of one run; accuracies are fractions in [0, 1], unknown numbers NaN.

    ``settings`` are written as flat ``cfg.*`` columns and again, as JSON, in the column ``config``.
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
        return row | {f"cfg.{key}": _cell(value) for key, value in settings.items()}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RunRecord:
        """Return the record of a stored row."""
        known = {f.name for f in fields(cls)} - {"settings"}
        # Parquet keeps an unknown number as null.
        values: dict[str, Any] = {k: _NAN if v is None else v for k, v in row.items() if k in known}
        return cls(**values, settings=json.loads(row["config"]))


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
        """Return where a run's ``runs``, ``history``, ``predictions`` or ``weights`` file is."""
        suffix = "safetensors" if kind == "weights" else "parquet"
        return self.root / kind / f"{run_id}.{suffix}"

    def check_writable(self) -> None:
        """Make the folder; raises ``InputError`` if it cannot be written to."""
        probe = self.root / "runs" / ".writable"
        try:
            with atomic_path(probe):
                pass
            probe.unlink()
        except OSError as error:
            raise InputError(f"results folder {self.root} cannot be written to: {error.strerror}") from error

    def status(self, run_id: str) -> str | None:
        """Return ``"done"`` or ``"failed"``, or None if there is no record of the run."""
        path = self.path("runs", run_id)
        return str(_read_row(path, ["status"])["status"]) if path.exists() else None

    def read(self, run_id: str) -> RunRecord | None:
        """Return a run's record, if there is one."""
        path = self.path("runs", run_id)
        if not path.exists():
            return None
        return RunRecord.from_row(_read_row(path))

    def write(self, record: RunRecord, tables: RunTables | None = None) -> None:
        """Store a run: its tables first, its row last, each file whole or not at all."""
        for kind, columns in (("history", tables and tables.history), ("predictions", tables and tables.predictions)):
            if columns:
                _write_parquet(self.path(kind, record.run_id), {"run_id": record.run_id, **columns})
        row = {key: [value] for key, value in record.to_row().items()}
        _write_parquet(self.path("runs", record.run_id), row)

    def write_weights(self, run_id: str, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
        """Store the trained part of a run."""
        from safetensors.torch import save_file

        with atomic_path(self.path("weights", run_id)) as temporary:
            save_file(dict(tensors), temporary, metadata=dict(metadata))


def _write_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary:
        table = pa.Table.from_pandas(pd.DataFrame(dict(columns)), preserve_index=False)
        # What describes a hundred columns would outweigh their one row five times.
        pq.write_table(
            table.replace_schema_metadata(None),
            temporary,
            use_dictionary=False,
            write_statistics=False,
            store_schema=False,
        )


def _read_row(path: Path, columns: list[str] | None = None) -> dict[str, Any]:
    import pyarrow.parquet as pq

    try:
        rows = pq.ParquetFile(path).read(columns).to_pylist()
        return rows[0]
    except Exception as error:
        raise InputError(f"record {path} cannot be read ({error}); move it away to run it again") from error


def _read_all(files: list[Path]) -> pd.DataFrame:
    """Read files whose columns may differ: a column that a file lacks is missing in its rows."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not files:
        return pd.DataFrame()
    tables = [pq.ParquetFile(file).read() for file in files]
    return pa.concat_tables(tables, promote_options="permissive").to_pandas()


def load_results(results: Path | str) -> pd.DataFrame:
    """Return every record of a results folder, one row per run, sorted by suite, method, task and seed.

    Raises ``InputError`` if the folder does not exist.
    """
    folder = Path(results) / "runs"
    if not folder.is_dir():
        raise InputError(f"there are no results in {results}: it has no 'runs' folder")
    frame = _read_all(sorted(folder.glob("*.parquet")))
    if frame.empty:
        return frame
    return frame.sort_values(["suite", "method", "task", "seed", "run_id"], ignore_index=True)


def load_history(results: Path | str, run_ids: Iterable[str]) -> pd.DataFrame:
    """Return the histories of runs: run_id, epoch, split, loss, accuracy, learning_rate."""
    return _load_kind("history", results, run_ids)


def load_predictions(results: Path | str, run_ids: Iterable[str]) -> pd.DataFrame:
    """Return the predictions of runs: run_id, index, label, predicted, confidence."""
    return _load_kind("predictions", results, run_ids)


def _load_kind(kind: str, results: Path | str, run_ids: Iterable[str]) -> pd.DataFrame:
    store = Store(results)
    return _read_all([path for run_id in run_ids if (path := store.path(kind, run_id)).exists()])
