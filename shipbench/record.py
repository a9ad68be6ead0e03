"""The record: one row per run, written once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


NAN = float("nan")


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
    flops_per_image: float = NAN
    final_test_acc: float = NAN
    best_test_acc: float = NAN
    best_test_epoch: int = -1
    val_acc: float = NAN
    chance_acc: float = NAN
    train_loss: float = NAN
    train_seconds: float = NAN
    eval_seconds: float = NAN
    train_images_per_second: float = NAN
    eval_images_per_second: float = NAN
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
        return {key: as_text(value) if isinstance(value, str) else value for key, value in row.items()}

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
        return NAN
    allowed: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float)}
    if isinstance(value, bool) or not isinstance(value, allowed[kind]):
        raise ValueError(f"column {name} is {'missing' if value is None else repr(value)[:40]}, expected {kind}")
    return value


def as_text(value: str) -> str:
    """Return text that can be stored: a file's name, and an error about it, may hold bytes that are no letters."""
    return value.encode(errors="backslashreplace").decode()


def _cell(value: Any) -> Any:
    """Sequences become text, so that a column has one type in every file; missing values stay missing."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
