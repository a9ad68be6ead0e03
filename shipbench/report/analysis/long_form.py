"""All results in long form: one row per run, in a fixed order, with unrounded fractions."""

from __future__ import annotations

import pandas as pd

from shipbench.report.analysis.normalise import reading_order
from shipbench.report.analysis.study import Study
from shipbench.report.wording.names import setting_name
from shipbench.report.wording.numbers import setting

_COLUMNS = (
    "run_id",
    "suite",
    "group",
    "task",
    "method",
    "arm",
    "switches",
    "changes",
    "protocol",
    "tuning",
    "recipe",
    "seed",
    "status",
    "selection",
    "accuracy",
    "final_test_acc",
    "best_test_acc",
    "best_test_epoch",
    "val_acc",
    "trainable_params",
    "trainable_params_without_head",
    "total_params",
    "flops_per_image",
    "train_seconds",
    "eval_seconds",
    "train_images_per_second",
    "eval_images_per_second",
    "peak_memory_bytes",
    "backbone",
    "backbone_sha256",
    "checkpoint",
    "image_size",
    "image_format",
    "data_fingerprint",
    "precision",
    "device",
    "threads",
    "stacked_runs",
    "shipbench_version",
    "git_commit",
)


def long_form(study: Study) -> pd.DataFrame:
    """Return one row per run; ``accuracy`` is what the selection rule takes (empty if it takes nothing).

    ``arm`` names the rows of tables that the run counts in, ``tuning`` says whether a tuning chose its settings.
    """
    changes = study.by_record({arm.key: _changes(arm.changes) for arm in study.arms})
    frame = study.records.assign(arm=study.labels, changes=changes, selection=study.selection.name)
    return frame.loc[reading_order(frame), list(_COLUMNS)].reset_index(drop=True)


def _changes(pairs: tuple[tuple[str, object], ...]) -> str:
    return "; ".join(f"{setting_name(key)}={setting(value)}" for key, value in pairs)
