"""The files of a run, and of a results folder, as ``shipbench push`` uploads them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shipbench.backbones.licence import licence_of
from shipbench.counts import counted
from shipbench.errors import InputError
from shipbench.methods import get_method
from shipbench.record import MEAN_PER_CLASS, RunRecord, as_text
from shipbench.results.loading import load_predictions, load_results
from shipbench.results.store import Store
from shipbench.runs.export import Exported, export_run
from shipbench.runs.finished import checkpoint_to_rebuild, tested_record
from shipbench.runs.hub import WEIGHTS, Upload
from shipbench.runs.merged import MergedModel, export_merged
from shipbench.runs.model_card import RECORDS, Card, model_card, results_card
from shipbench.runs.program import description_of, export_program
from shipbench.statistics import Interval, bootstrap_interval

if TYPE_CHECKING:
    import pandas as pd

MERGED, PROGRAM = "model.safetensors", "model.pt2"
# Everything else belongs to one machine: unfinished runs, plans, the logs of a cluster, the files of trackers.
_PUBLIC = {
    **dict.fromkeys(("runs", "history", "predictions", "features"), ".parquet"),
    "weights": ".safetensors",
    "tuning": ".json",
}
"""The suffix of the files in each folder that is uploaded."""


def model_upload(store: Store, run_id: str, repo: str, folder: Path, *, checkpoint: str | None = None) -> Upload:
    """Write the files of a run into ``folder`` and return them as a commit to the model repository ``repo``.

    They are the exported run, the same model in a form that needs no shipbench (a timm model if the method can be
    merged into the backbone, else a program), its description, the record and the model card. Raises ``InputError`` as
    ``export_run`` and ``export_program`` do.
    """
    record = tested_record(store, run_id)
    checkpoint = checkpoint_to_rebuild(record, checkpoint)
    export_run(store, run_id, folder / WEIGHTS)
    model, exported, description = _write_model(store, record, folder, checkpoint)
    card = Card(
        repo=repo,
        record=record,
        interval=_interval(store, record),
        licence=licence_of(record.backbone, record.checkpoint),
        merged=model == MERGED,
        resize=exported.resize,
        class_names=exported.class_names,
    )
    texts = {
        "README.md": model_card(card),
        "config.json": _json(description),
        "record.json": _json(_public(record)),
    }
    contents: dict[str, bytes | Path] = {name: as_text(text).encode() for name, text in texts.items()}
    contents |= {name: folder / name for name in (WEIGHTS, model)}
    other_form = PROGRAM if model == MERGED else MERGED
    message = f"{record.method} on {record.task}, run {run_id}"
    return Upload(repo, "model", message, contents, replaced=(other_form,))


def _write_model(
    store: Store, record: RunRecord, folder: Path, checkpoint: str | None
) -> tuple[str, Exported, dict[str, Any]]:
    """Write a run's model in a form that needs no shipbench; return the file's name, the model and its description."""
    if get_method(record.method).mergeable:
        # A backbone may lack a tensor that the merged model needs. Weights that cannot be loaded fail again below.
        with contextlib.suppress(InputError):
            merged = export_merged(store, record.run_id, folder / MERGED, checkpoint=checkpoint)
            return MERGED, merged.exported, _timm_config(merged)
    exported = export_program(store, record.run_id, folder / PROGRAM, checkpoint=checkpoint)
    return PROGRAM, exported, description_of(exported)


def results_upload(store: Store, repo: str) -> Upload:
    """Return the finished runs of a results folder, with a card, as a commit to the dataset repository ``repo``.

    It adds all records as one table, because the hub reads several files as one only if their columns agree, which
    those of runs with different settings do not. Raises ``InputError`` if a record cannot be read, if there is none,
    and for a link out of the folder.
    """
    files = {path.relative_to(store.root).as_posix(): path for path in sorted(_finished_files(store.root))}
    runs = [name for name in files if name.startswith("runs/")]
    if not runs:
        raise InputError(f"{store.root} holds no records to upload; name a results folder with --results DIR")
    card = results_card(repo, len(runs), {name.split("/")[0] for name in files})
    table = io.BytesIO()
    _in_columns_of_one_type(load_results(store.root)).to_parquet(table, index=False)
    contents: dict[str, bytes | Path] = {"README.md": card.encode(), RECORDS: table.getvalue(), **files}
    return Upload(repo, "dataset", counted(len(runs), "record"), contents)


def _in_columns_of_one_type(frame: pd.DataFrame) -> pd.DataFrame:
    """Return ``frame`` with texts in columns of several types, which Parquet does not have."""
    mixed = [name for name in map(str, frame) if _has_several_types(frame[name])]
    return frame.assign(**{name: frame[name].map(str, na_action="ignore") for name in mixed})


def _has_several_types(column: pd.Series[Any]) -> bool:
    types = (
        {float if type(value) is int else type(value) for value in column.dropna()} if column.dtype == object else ()
    )
    return len(types) > 1


def _finished_files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        public = path.suffix == (".lock" if len(parts) == 1 else _PUBLIC.get(parts[0]))
        if not public or not path.is_file() or any(part.startswith(".") for part in parts):
            continue
        if not path.resolve().is_relative_to(root.resolve()):
            raise InputError(
                f"{path} is a link to {path.resolve()}, outside the results folder, which would be uploaded; copy the "
                "folder without links, as 'cp -rL' does, or remove the link"
            )
        yield path


def _interval(store: Store, record: RunRecord) -> Interval | None:
    """Return the bootstrap interval of the run's accuracy by its metric, as a fraction; None without predictions."""
    if not store.path("predictions", record.run_id).exists():
        return None
    predictions = load_predictions(store.root, [record.run_id])
    labels = predictions["label"].to_numpy()
    right = np.asarray(predictions["predicted"] == labels, dtype=np.float64)
    return bootstrap_interval(right, classes=labels if record.headline_metric == MEAN_PER_CLASS else None)


def _timm_config(merged: MergedModel) -> dict[str, Any]:
    """Return the ``config.json`` with which ``timm.create_model("hf-hub:...")`` creates the model and its transform."""
    exported, size = merged.exported, merged.image_size
    backbone: Any = exported.model.backbone
    return {
        "architecture": merged.architecture.split(".")[0],
        "num_classes": merged.num_classes,
        **({"model_args": {"img_size": size}} if merged.takes_size else {}),
        **({"label_names": list(exported.class_names)} if exported.class_names else {}),
        "pretrained_cfg": {
            "num_classes": merged.num_classes,
            "input_size": [3, size, size],
            "fixed_input_size": merged.takes_size,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "squash" if exported.resize == "squash" else "center",
            "mean": list(exported.preprocessing.mean),
            "std": list(exported.preprocessing.std),
            "first_conv": backbone.pretrained_cfg.get("first_conv"),
            "classifier": backbone.pretrained_cfg.get("classifier"),
        },
    }


def _public(record: RunRecord) -> dict[str, Any]:
    """Return the columns of a record without the name of the machine, which tells nothing about the model."""
    return {name: value for name, value in record.to_row().items() if name != "host"}


def _json(value: object) -> str:
    # A measurement that is unknown is NaN, which JSON lacks.
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), indent=1) + "\n"
