"""The record of a run: one flat row, written once.

Every field of ``RunRecord`` is annotated with the ``Column`` that it is stored in. Whatever needs a list of columns
(the readers, the report's long form, the reference page) derives it from ``record_columns``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args, get_type_hints, overload

from shipbench.settings import plain

if TYPE_CHECKING:
    import pandas as pd


NAN = float("nan")
SHIPBENCH, UNSEALED, ELSEWHERE = "shipbench", "unsealed", "elsewhere"
TRAINED, EVALUATED, IMPORTED = "trained", "evaluated", "imported"
ACCURACY, MEAN_PER_CLASS = "accuracy", "mean-per-class"
SEED_UNKNOWN = -1

Topic: TypeAlias = Literal["run", "scores", "cost", "backbone", "images", "data", "method", "machine", "software"]
Kind: TypeAlias = Literal["str", "int", "float"]
Reader: TypeAlias = Literal["store", "report"]


@dataclass(frozen=True)
class Column:
    """A column of the stored row.

    ``unit`` is empty for texts and plain counts; a ``fraction`` lies in [0, 1]. ``required_by`` names the readers that
    refuse a record without the column, such as one made by another program; every other column may be absent.
    ``assumed`` is the text that a report reads where there is none. ``long_form`` says whether the report's long form
    (``results.csv``) shows the column. ``name``, ``kind`` and ``default`` follow from the annotated field; ``default``
    is None if a ``RunRecord`` cannot be made without a value.
    """

    topic: Topic
    meaning: str
    unit: str = ""
    required_by: tuple[Reader, ...] = ()
    assumed: str = ""
    long_form: bool = True
    name: str = ""
    kind: Kind = "str"
    default: str | int | float | None = None

    @property
    def blank(self) -> str | int | float:
        """The value that stands in for an absent one: the default, or an empty text or zero if there is none."""
        if self.default is not None:
            return self.default
        return "" if self.kind == "str" else 0


_INT64 = 2**63
_BOTH: tuple[Reader, ...] = ("store", "report")


@dataclass(frozen=True)
class RunRecord:
    """Everything recorded about one run.

    Accuracies are fractions in [0, 1]. An unknown measurement is NaN, an unknown count 0. ``settings`` are stored as
    JSON in the column ``config`` and once more as one ``cfg.*`` column each.
    """

    run_id: Annotated[str, Column("run", "hash of everything that decides the result", required_by=_BOTH)]
    status: Annotated[str, Column("run", "`done` or `failed`", required_by=("store",), assumed="done")]
    method: Annotated[str, Column("run", "registered name of the method", required_by=_BOTH)]
    task: Annotated[str, Column("run", "name of the task", required_by=_BOTH)]
    group: Annotated[str, Column("run", "group of the task, such as Natural")]
    suite: Annotated[str, Column("run", "suite of the task, such as vtab-1k")]
    seed: Annotated[
        int, Column("run", "random seed of the run; imported: -1 if it is not stated", required_by=("report",))
    ]
    recipe: Annotated[str, Column("run", "`default` or `published`: where unset settings come from")]
    protocol: Annotated[
        str,
        Column(
            "run",
            "`final` (train on train + val, test) or `tuning` (train on train, score val)",
            assumed="final",
        ),
    ]
    settings: Annotated[
        Mapping[str, Any], Column("run", "every setting by name, as JSON", assumed="{}", long_form=False)
    ]
    backbone: Annotated[str, Column("backbone", "timm name of the backbone")]
    backbone_sha256: Annotated[str, Column("backbone", "SHA-256 of the backbone's weights")]
    checkpoint: Annotated[str, Column("backbone", "weights file, or `random`; empty for the backbone's own weights")]
    image_size: Annotated[int, Column("images", "side of the square input images", unit="pixels")]
    data_fingerprint: Annotated[str, Column("data", "SHA-256 of the task's images, labels and splits")]
    image_format: Annotated[str, Column("images", "`jpeg`, `png` or `array`")]
    num_classes: Annotated[int, Column("data", "number of classes", long_form=False)]
    precision: Annotated[str, Column("machine", "`fp32` or `bf16`")]
    device: Annotated[str, Column("machine", "`cpu`, `mps`, or the GPU, as in `cuda: NVIDIA H200`")]
    checkpoint_part: Annotated[
        str, Column("backbone", "where the weights lie in the file, such as `model_ema`", long_form=False)
    ] = ""
    position_grid: Annotated[
        int,
        Column("backbone", "side of the weights' grid of position embeddings, before resampling", long_form=False),
    ] = 0
    normalisation: Annotated[
        str, Column("images", "whose mean and deviation normalise the images", long_form=False)
    ] = ""
    switches: Annotated[str, Column("run", "active ablation switches, joined by +")] = ""
    overrides: Annotated[str, Column("run", "settings that differ from the recipe", long_form=False)] = ""
    origin: Annotated[
        str,
        Column(
            "run",
            "`shipbench`; `unsealed` if another program has written a record of shipbench again; `elsewhere`, or the "
            "name in the record, if another program made it",
            assumed=SHIPBENCH,
        ),
    ] = SHIPBENCH
    error: Annotated[str, Column("run", "why the run failed", long_form=False)] = ""
    kind: Annotated[
        str,
        Column(
            "run",
            "`trained`; `evaluated` if a trained run was scored on other images; `imported` from another harness",
            assumed=TRAINED,
        ),
    ] = TRAINED
    parent_run: Annotated[str, Column("run", "evaluated: the run that trained the model", long_form=False)] = ""
    origin_file: Annotated[
        str,
        Column("run", "imported: path of the file with the result, as seen from the results folder", long_form=False),
    ] = ""
    origin_file_sha256: Annotated[
        str, Column("run", "imported: SHA-256 of the file that the result was read from", long_form=False)
    ] = ""
    epoch_rule: Annotated[
        str, Column("run", "imported: the epoch of the accuracy: `final`, `validation` or `oracle`; empty if unknown")
    ] = ""
    origin_note: Annotated[str, Column("run", "imported: what limits the result", long_form=False)] = ""
    reference: Annotated[
        str, Column("run", "imported: where the result was published, as its file says", long_form=False)
    ] = ""
    created: Annotated[str, Column("run", "when the record was made (ISO 8601, UTC)", long_form=False)] = ""
    shipbench_version: Annotated[str, Column("software", "version of shipbench")] = ""
    git_commit: Annotated[str, Column("software", "commit of the checkout; + marks local changes")] = ""
    python_version: Annotated[str, Column("software", "version of Python", long_form=False)] = ""
    torch_version: Annotated[str, Column("software", "version of torch", long_form=False)] = ""
    timm_version: Annotated[str, Column("software", "version of timm", long_form=False)] = ""
    numpy_version: Annotated[str, Column("software", "version of NumPy", long_form=False)] = ""
    pillow_version: Annotated[str, Column("software", "version of Pillow", long_form=False)] = ""
    sklearn_version: Annotated[str, Column("software", "version of scikit-learn", long_form=False)] = ""
    peft_version: Annotated[str, Column("software", "version of peft, if a tuner of it ran", long_form=False)] = ""
    method_package: Annotated[
        str, Column("software", "package of a plug-in's method and its version; empty for those of shipbench")
    ] = ""
    host: Annotated[str, Column("machine", "host name", long_form=False)] = ""
    threads: Annotated[int, Column("machine", "torch threads")] = 0
    tf32: Annotated[
        int, Column("machine", "1 if fp32 products may use TF32, which shipbench turns off, else 0", long_form=False)
    ] = 0
    source: Annotated[str, Column("data", "where the images come from, such as `folder` or `vtab-1k`")] = ""
    suite_tasks: Annotated[
        str, Column("data", "own suites: names of all tasks of the suite, as a JSON list", long_form=False)
    ] = ""
    class_names: Annotated[
        str, Column("data", "names of the classes in the order of their numbers, as a JSON list", long_form=False)
    ] = ""
    draw: Annotated[
        str, Column("data", "own tasks: number and origin of the images to train, validate and test", long_form=False)
    ] = ""
    resize: Annotated[
        str, Column("data", "how images get their size: `squash`, or `crop` of the centre", long_form=False)
    ] = ""
    augment: Annotated[
        str, Column("data", "how training images are varied: `none` or `flip-crop`", long_form=False)
    ] = ""
    shots: Annotated[int, Column("data", "training images per class; 0 if all are used")] = 0
    corruption: Annotated[str, Column("data", "evaluated: how the images were corrupted", long_form=False)] = ""
    severity: Annotated[int, Column("data", "evaluated: severity of the corruption, 1 to 5", long_form=False)] = 0
    headline_metric: Annotated[
        str, Column("scores", "the metric that tables show: `accuracy` or `mean-per-class`", assumed=ACCURACY)
    ] = ACCURACY
    n_train: Annotated[int, Column("data", "training images", long_form=False)] = 0
    n_test: Annotated[int, Column("data", "images in the evaluated split", long_form=False)] = 0
    trainable_params: Annotated[int, Column("cost", "trained parameters, head included")] = 0
    trainable_params_without_head: Annotated[int, Column("cost", "trained parameters without the head")] = 0
    params_as_written: Annotated[
        float, Column("cost", "imported: trained parameters, as the file counts them", long_form=False)
    ] = NAN
    params_with_head: Annotated[
        str,
        Column("cost", "imported: whether that count has the head: `yes`, `no` or empty", long_form=False),
    ] = ""
    total_params: Annotated[int, Column("cost", "all parameters of the model")] = 0
    flops_per_image: Annotated[
        float,
        Column(
            "cost",
            "inference on a batch of one image; matrix products and attention, 2 per multiply-add",
            unit="FLOPs/image",
        ),
    ] = NAN
    final_test_acc: Annotated[float, Column("scores", "test accuracy after the last epoch", unit="fraction")] = NAN
    final_test_mean_class_acc: Annotated[
        float, Column("scores", "mean of the classes' test accuracies after the last epoch", unit="fraction")
    ] = NAN
    best_test_acc: Annotated[float, Column("scores", "highest test accuracy of any epoch", unit="fraction")] = NAN
    best_test_epoch: Annotated[int, Column("scores", "epoch (from 0) of `best_test_acc`; -1 if unknown")] = -1
    stated_acc: Annotated[
        float,
        Column(
            "scores",
            "imported: test accuracy at an epoch chosen on validation images or not stated (`epoch_rule`)",
            unit="fraction",
        ),
    ] = NAN
    val_acc: Annotated[float, Column("scores", "validation accuracy after the last epoch", unit="fraction")] = NAN
    val_mean_class_acc: Annotated[
        float, Column("scores", "mean of the classes' validation accuracies after the last epoch", unit="fraction")
    ] = NAN
    chance_acc: Annotated[
        float, Column("scores", "majority-class accuracy on the evaluated split", unit="fraction", long_form=False)
    ] = NAN
    train_loss: Annotated[float, Column("scores", "mean training loss of the last epoch", long_form=False)] = NAN
    train_seconds: Annotated[
        float,
        Column(
            "cost", "training time, without features computed before; stacked runs share theirs equally", unit="seconds"
        ),
    ] = NAN
    eval_seconds: Annotated[
        float,
        Column(
            "cost",
            "evaluation time, without features computed before; stacked runs share theirs equally",
            unit="seconds",
        ),
    ] = NAN
    train_images_per_second: Annotated[float, Column("cost", "training throughput", unit="images/second")] = NAN
    eval_images_per_second: Annotated[float, Column("cost", "evaluation throughput", unit="images/second")] = NAN
    micro_batch: Annotated[
        int,
        Column(
            "machine",
            "images per forward pass after the device ran out of memory; 0 if it never did",
            unit="images",
            long_form=False,
        ),
    ] = 0
    captured: Annotated[
        int,
        Column("machine", "1 if training steps were recorded as a CUDA graph and replayed, else 0", long_form=False),
    ] = 0
    stacked_runs: Annotated[int, Column("machine", "runs trained together in one process, this one included")] = 1
    peak_memory_bytes: Annotated[
        int, Column("cost", "peak memory; of all runs together if they were stacked", unit="bytes")
    ] = 0
    levels: Annotated[
        str, Column("method", "SHIP: first block (from 0) of each level, as a JSON list", long_form=False)
    ] = ""
    affinity: Annotated[
        str, Column("method", "SHIP: cosine affinity of the blocks, as a JSON matrix", long_form=False)
    ] = ""
    learned: Annotated[
        str, Column("method", "trained numbers by name, such as SHIP's `attention_scale`, as JSON", long_form=False)
    ] = ""
    affinity_std: Annotated[
        str,
        Column("method", "SHIP: deviation of the affinity over the training images, as a JSON matrix", long_form=False),
    ] = ""

    @property
    def done(self) -> bool:
        """Whether the run finished without an error."""
        return self.status == "done"

    @property
    def headline_acc(self) -> float:
        """The test accuracy after the last epoch by the metric that tables show."""
        return self.final_test_mean_class_acc if self.headline_metric == MEAN_PER_CLASS else self.final_test_acc

    @property
    def collapsed(self) -> bool:
        """Whether the run finished no better than one answer for all test images, by its metric."""
        per_class = self.headline_metric == MEAN_PER_CLASS and self.num_classes > 0
        return self.done and is_collapsed(self.headline_acc, 1 / self.num_classes if per_class else self.chance_acc)

    def _repr_html_(self) -> str:
        """Return the facts of the run that a reader asks for first, as a table for notebooks."""
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in self._summary())
        return f"<table>{rows}</table>"

    def _summary(self) -> list[tuple[str, str]]:
        names = ("run_id", "status", "error", "method", "switches", "task", "suite", "seed", "protocol", "overrides")
        facts = [(name, str(value)) for name in names if (value := vars(self)[name]) != ""]
        per_class = self.headline_metric == MEAN_PER_CLASS
        headline = ("final_test_mean_class_acc", "val_mean_class_acc") if per_class else ()
        accuracies = (*headline, "final_test_acc", "best_test_acc", "stated_acc", "val_acc")
        scores = [(name, f"{100 * value:.1f} %") for name in accuracies if not is_null(value := vars(self)[name])]
        # Failed runs and results from elsewhere may lack the rest.
        params = [("trainable_params", f"{self.trainable_params:,}")] if self.trainable_params else []
        seconds = [("train_seconds", f"{self.train_seconds:.1f}")] if not is_null(self.train_seconds) else []
        return [*facts, *scores, *params, *seconds]

    def to_row(self) -> dict[str, Any]:
        """Return the flat row to store: ``record_columns`` in order, then a ``cfg.*`` column for each setting."""
        row = asdict(self)
        settings = row.pop("settings")
        row["config"] = json.dumps(settings, sort_keys=True)
        row |= {f"cfg.{key}": _cell(value) for key, value in settings.items()}
        return {key: as_text(value) if isinstance(value, str) else value for key, value in row.items()}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RunRecord:
        """Return the record in a stored row; other columns are ignored, and absent or null ones take their defaults.

        Whole floats count as integers, times as ISO 8601 texts or as seconds. Raises ``ValueError`` if a column without
        a default is absent or null, or if a value has another type.
        """
        settings = json.loads(typed("config", "str", row.get("config")))
        if not isinstance(settings, dict):
            raise ValueError("config is not a table of settings")
        values: dict[str, Any] = {"settings": settings}
        for column in record_columns():
            value = row.get(column.name)
            optional = column.default is not None
            if column.name == "config" or (optional and is_null(value)):
                continue
            values[column.name] = typed(column.name, column.kind, plain(value))
        if values["status"] not in ("done", "failed"):
            raise ValueError(f"status is {values['status']!r}, neither done nor failed")
        return cls(**values)


@cache
def record_columns() -> tuple[Column, ...]:
    """Return the columns of a stored row in order; the ``cfg.*`` columns of the settings follow them."""
    hints = get_type_hints(RunRecord, include_extras=True)
    columns = []
    for field in fields(RunRecord):
        kind, column = get_args(hints[field.name])
        if field.name == "settings":
            config = replace(column, name="config", default="{}")
        else:
            default = None if field.default is MISSING else field.default
            columns.append(replace(column, name=field.name, kind=kind.__name__, default=default))
    return (*columns, config)


def is_null(value: object) -> bool:
    """Return whether ``value`` is None or not a number, as which frames keep an absent text or number."""
    return value is None or value != value


def typed(name: str, kind: Kind, value: Any) -> Any:
    """Return ``value``, a Python value, as the ``kind`` that column ``name`` has in a record.

    Frames of other programs keep integers with gaps as floats, and times in types of their own. Raises ``ValueError``
    for a null and for a value of any other type.
    """
    if is_null(value):
        raise ValueError(f"column {name} is missing, expected {kind}")
    if kind == "str" and isinstance(value, (str, date)):
        return value if isinstance(value, str) else value.isoformat()
    if kind == "float" and isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        number = float(value)
        if kind == "float":
            return number
        if kind == "int" and number.is_integer() and -_INT64 <= value < _INT64:
            return int(value)
    raise ValueError(f"column {name} is {repr(value)[:40]}, expected {kind}")


def as_text(value: str) -> str:
    """Return ``value`` with undecodable bytes escaped: file names, and errors that quote them, may not be UTF-8."""
    return value.encode(errors="backslashreplace").decode()


def _cell(value: Any) -> Any:
    """Return a sequence as text, so that a column has the same type in every file, and any other value unchanged."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value


@overload
def is_collapsed(accuracy: float, chance: float) -> bool: ...
@overload
def is_collapsed(accuracy: pd.Series[float], chance: pd.Series[float]) -> pd.Series[bool]: ...
def is_collapsed(accuracy: Any, chance: Any) -> Any:
    """Return whether ``accuracy`` does not exceed ``chance``, the majority-class accuracy; False where one is NaN."""
    return accuracy <= chance


def time_now() -> str:
    """Return the time as ``created`` holds it: ISO 8601, UTC, to the second, so that such texts sort by time."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@overload
def is_outdated(created: str, of_run: str) -> bool: ...
@overload
def is_outdated(created: pd.Series[str], of_run: pd.Series[str]) -> pd.Series[bool]: ...
def is_outdated(created: Any, of_run: Any) -> Any:
    """Return whether an evaluation is older than the record of its run, and so of weights that the run had before.

    Both are the times in the records, because copying a folder changes those of its files. False where a time is
    unknown, an empty text.
    """
    return (created != "") & (created < of_run)
