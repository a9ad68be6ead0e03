"""All results in long form: one row per record, in a fixed order, with unrounded fractions."""

from __future__ import annotations

import pandas as pd

from shipbench.report.labels import setting_name
from shipbench.report.numbers import setting
from shipbench.report.records import reading_order
from shipbench.report.study import Study

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
    "image_size",
    "image_format",
    "data_fingerprint",
    "precision",
    "device",
    "shipbench_version",
    "git_commit",
)


def long_form(study: Study) -> pd.DataFrame:
    """Return one row per record; ``accuracy`` is what the selection rule takes (empty if it takes nothing)."""
    arms = {arm.key: arm for arm in study.arms}
    keys = study.runs["arm"].reindex(study.records.index)
    labels = [arms[int(key)].label if pd.notna(key) else "" for key in keys]
    changes = [_changes(arms[int(key)].changes) if pd.notna(key) else "" for key in keys]
    frame = study.records.assign(arm=labels, changes=changes, selection=study.selection.name)
    return frame.loc[reading_order(frame), list(_COLUMNS)].reset_index(drop=True)


def _changes(pairs: tuple[tuple[str, object], ...]) -> str:
    return "; ".join(f"{setting_name(key)}={setting(value)}" for key, value in pairs)
