"""Builders of records: a single run in a line, or a study with plausible numbers. Nothing is trained."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from shipbench.published import published_rows, published_ship_runs
from shipbench.report import ReportOptions
from shipbench.report.analysis.study import Study, build_study
from shipbench.report.analysis.suite import SuiteView
from shipbench.report.contents import RECORDS, SUITE_SECTIONS
from shipbench.report.document import Cell, Figure, Report, Table
from shipbench.selection import get_selection
from shipbench.tasks.catalogue import DEMO, VTAB, Task
from shipbench.tasks.registry import TASKS

Records = list[dict[str, Any]]

METHODS = ("full", "linear", "vpt-shallow", "vpt-deep", "ship")
VTAB_TASKS = tuple(task.name for task in VTAB.tasks)
DEMO_TASKS = tuple(task.name for task in DEMO.tasks)
SWITCHES = ("no-hierarchy", "no-shared-prompts", "no-attribute-prompts", "no-matching-loss", "coupled-attention")

_PRINTED = {
    "full": "Full fine-tuning",
    "linear": "Linear probe",
    "vpt-shallow": "VPT-Shallow",
    "vpt-deep": "VPT-Deep",
    "ship": "SHIP",
}
_DEMO = {
    "digits": (95.1, 92.5, 93.8, 95.4, 96.2),
    "textures": (97.0, 96.1, 96.4, 97.2, 97.8),
    "earth-climate": (70.9, 71.0, 71.5, 72.2, 73.0),
    "dsprites-loc": (91.5, 55.2, 44.0, 84.0, 87.5),
    "clevr-count": (43.6, 32.1, 39.5, 49.0, 50.6),
    "clevr-dist": (56.0, 40.2, 47.9, 59.8, 60.9),
}
_COST = {"no-hierarchy": 0.4, "no-shared-prompts": 0.6, "no-attribute-prompts": 0.9, "no-matching-loss": 0.3}


def make_record(
    method: str = "ship", task: str = "cifar100", seed: int = 0, accuracy: float = 0.5, **columns: Any
) -> dict[str, Any]:
    """Return a finished run as a row of the store; ``columns`` override or add columns, including ``cfg.*``."""
    entry = TASKS.get(task)
    record = {
        "run_id": f"{method}-{task}-{seed}-{zlib.crc32(repr(sorted(columns.items())).encode()):08x}",
        "status": "done",
        "error": "",
        "created": "2025-03-01T12:00:00+00:00",
        "shipbench_version": "0.1.0",
        "git_commit": "0123456789abcdef",
        "method": method,
        "switches": "",
        "protocol": "final",
        "recipe": "default",
        "task": task,
        "group": entry.group if entry else "Natural",
        "suite": entry.suite if entry else "own",
        "backbone": "vit_base_patch16_224.orig_in21k",
        "backbone_sha256": "a1b2c3d4" * 8,
        "image_size": 224,
        "seed": seed,
        "data_fingerprint": f"data-of-{task}",
        "image_format": "png",
        "num_classes": entry.num_classes if entry else 10,
        "precision": "fp32",
        "device": "cpu",
        "trainable_params": 300_000,
        "trainable_params_without_head": 250_000,
        "total_params": 86_000_000,
        "final_test_acc": accuracy,
        "best_test_acc": min(1.0, accuracy + 0.01),
        "best_test_epoch": 70,
        "val_acc": float("nan"),
        "train_loss": 0.1,
        "train_seconds": 120.0,
        "eval_seconds": 30.0,
        "train_images_per_second": 800.0,
        "eval_images_per_second": 1500.0,
        "peak_memory_bytes": 3 * 1024**3,
        "flops_per_image": 17.6e9,
        "levels": "",
        "affinity": "",
    }
    return {**record, **columns}


def make_results(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return records as a frame with the union of their columns, as the store's reader does."""
    return pd.DataFrame(list(records))


def grid(methods: Sequence[str], tasks: Sequence[str], seeds: Sequence[int], **columns: Any) -> list[dict[str, Any]]:
    """Return a run for every method, task and seed, each with a distinct accuracy."""
    return [
        make_record(method, task, seed, round(0.3 + 0.07 * m + 0.011 * t + 0.0037 * s * (1 + m), 6), **columns)
        for m, method in enumerate(methods)
        for t, task in enumerate(tasks)
        for s, seed in enumerate(seeds)
    ]


def make_history(run_id: str, final: float, best: float, epochs: int = 100, every: int = 10) -> pd.DataFrame:
    """Return a training history whose test accuracy peaks at ``best`` and ends at ``final`` (epochs from 0)."""
    steps = np.arange(epochs)
    loss = 2.3 * np.exp(-steps / (epochs / 5)) + 0.6 * (1 - best) + 0.05
    train = pd.DataFrame({"epoch": steps, "split": "train", "loss": loss, "accuracy": np.nan})
    tested = np.arange(every - 1, epochs, every)
    curve = best * (1 - np.exp(-(tested + 1) / (epochs / 6)))
    curve[-1] = final
    curve[int(0.7 * len(curve))] = best
    test = pd.DataFrame({"epoch": tested, "split": "test", "loss": np.nan, "accuracy": curve})
    rows = pd.concat([train, test], ignore_index=True)
    return rows.assign(run_id=run_id, learning_rate=1e-3)


def _printed(method: str, task: str) -> float:
    if task in _DEMO:
        return _DEMO[task][METHODS.index(method)]
    row = next(row for row in published_rows() if row.method == _PRINTED[method])
    return row.accuracy_percent[task]


def _trainable(method: str, task: Task, levels: int, width: int) -> tuple[int, int]:
    head = (width + 1) * task.num_classes
    body = {
        "full": 85_798_656,
        "linear": 0,
        "vpt-shallow": 10 * width,
        "vpt-deep": 120 * width,
        "ship": (10 * levels + 30) * width,
    }[method]
    return body + head, body


def _affinity(levels: Sequence[int], rng: np.random.Generator, blocks: int = 12) -> list[list[float]]:
    """Return a symmetric affinity that decreases with distance in depth, faster across levels."""
    steps = np.array([0.045 if block in levels else 0.012 for block in range(1, blocks)])
    depth = np.concatenate([[0], np.cumsum(steps * rng.uniform(0.7, 1.6, blocks - 1))])
    return np.round(np.exp(-1.6 * np.abs(depth[:, None] - depth[None, :])), 4).tolist()


def study_records(
    tasks: Sequence[str], seeds: Sequence[int], methods: Sequence[str] = METHODS, **columns: Any
) -> list[dict[str, Any]]:
    """Return a study with plausible accuracies: published (or typical demo) values plus noise per seed."""
    rng = np.random.default_rng(7)
    records = []
    for task in tasks:
        published = published_ship_runs().get(task)
        levels = list(published.levels) if published else [0, 2, 4, 6, 8, 10, 11]
        affinity = _affinity(levels, rng)
        for method in methods:
            for seed in seeds:
                records.append(_study_record(method, TASKS[task], seed, levels, affinity, rng, columns))
    return records


def _study_record(
    method: str,
    task: Task,
    seed: int,
    levels: list[int],
    affinity: list[list[float]],
    rng: np.random.Generator,
    columns: dict[str, Any],
) -> dict[str, Any]:
    demo = task.suite != "vtab-1k"
    width = 384 if demo else 768
    final = float(np.clip(_printed(method, task.name) + rng.normal(0, 0.5), 1, 99.9)) / 100
    gap = abs(rng.normal(0.07 if method == "full" else 0.007, 0.004))
    with_head, without_head = _trainable(method, task, len(levels), width)
    speed = {"full": 0.55, "linear": 9.0, "vpt-shallow": 0.92, "vpt-deep": 0.9, "ship": 0.88}[method]
    settings: dict[str, Any] = {"cfg.lr": 1e-3, "cfg.weight_decay": 1e-4, "cfg.epochs": 10 if demo else 100}
    if method.startswith("vpt") or method == "ship":
        settings["cfg.prompt_length"] = 10
    if method == "ship":
        settings |= {"cfg.threshold": 0.95, "cfg.attention_scale": 0.1, "cfg.matching_weight": 0.5}
        columns = {"levels": json.dumps(levels), "affinity": json.dumps(affinity), **columns}
    backbone = "demo-vit-small-patch14" if demo else "vit_base_patch16_224.orig_in21k"
    return make_record(
        method,
        task.name,
        seed,
        round(final, 5),
        **{
            "best_test_acc": round(min(1.0, final + gap), 5),
            "trainable_params": with_head,
            "trainable_params_without_head": without_head,
            "train_images_per_second": round(speed * (160 if demo else 900), 1),
            "eval_images_per_second": round(min(speed, 1.0) * (500 if demo else 2400), 1),
            "train_seconds": round((10_000 if demo else 100_000) / (speed * (160 if demo else 900)), 1),
            "eval_seconds": round(task.n_test * 10 / (500 if demo else 2400), 1),
            "backbone": backbone,
            "image_size": 70 if demo else 224,
            "precision": "bf16" if demo else "fp32",
            "device": "cpu" if demo else "NVIDIA H200",
            **settings,
            **columns,
        },
    )


def ablation_records(
    tasks: Sequence[str], seeds: Sequence[int], switches: Sequence[str] = SWITCHES
) -> list[dict[str, Any]]:
    """Return SHIP runs with one part switched off at a time, each a little worse than the full method."""
    rng = np.random.default_rng(11)
    records = []
    for switch in switches:
        for record in study_records(tasks, seeds, ["ship"]):
            loss = _COST.get(switch, 1.8) * (1 + rng.normal(0, 0.8)) / 100
            threshold = 1.0 if switch == "no-hierarchy" else 0.95
            weight = 0.0 if switch == "no-matching-loss" else 0.5
            accuracy = float(np.clip(record["final_test_acc"] - loss, 0.01, 0.999))
            changes = {
                "switches": switch,
                "run_id": f"{record['run_id']}-{switch}",
                "final_test_acc": accuracy,
                "best_test_acc": min(1.0, accuracy + 0.006),
                "cfg.threshold": threshold,
                "cfg.matching_weight": weight,
            }
            records.append({**record, **changes})
    return records


def sweep_records(
    tasks: Sequence[str], seeds: Sequence[int], key: str, values: Sequence[Any], best: Any
) -> list[dict[str, Any]]:
    """Return SHIP runs with one setting varied; accuracy decreases with the log distance from ``best``."""
    records = []
    for value in values:
        for record in study_records(tasks, seeds, ["ship"]):
            loss = 0.012 * abs(np.log(max(value, 1e-3) / best))
            accuracy = float(np.clip(record["final_test_acc"] - loss, 0.01, 0.999))
            changes = {
                "run_id": f"{record['run_id']}-{key}-{value}",
                "final_test_acc": accuracy,
                "best_test_acc": min(1.0, accuracy + 0.006),
                f"cfg.{key}": value,
            }
            records.append({**record, **changes})
    return records


def histories(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return a history for every finished run."""
    frames = [
        make_history(
            r["run_id"],
            r["final_test_acc"],
            r["best_test_acc"],
            int(r.get("cfg.epochs", 100)),
            max(1, int(r.get("cfg.epochs", 100)) // 10),
        )
        for r in records
        if r["status"] == "done"
    ]
    return pd.concat(frames, ignore_index=True)


def full_study() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return results and history of two suites with ablations, sweeps, a failed run and a missing run."""
    records = [*study_records(VTAB_TASKS, (0, 1, 2)), *study_records(DEMO_TASKS, (0, 1, 2))]
    records += [*ablation_records(VTAB_TASKS, (0, 1)), *ablation_records(DEMO_TASKS, (0, 1))]
    records += sweep_records(DEMO_TASKS, (0, 1), "prompt_length", (1, 5, 20, 50), 10)
    records += sweep_records(DEMO_TASKS, (0, 1), "threshold", (0.9, 0.98), 0.95)
    records += sweep_records(DEMO_TASKS, (0, 1), "matching_weight", (0.1, 1.0), 0.5)
    records = [r for r in records if (r["method"], r["task"], r["seed"]) != ("vpt-shallow", "kitti", 2)]
    records = [r for r in records if (r["method"], r["task"]) != ("full", "dmlab")]
    failed = make_record("full", "dmlab", 0, status="failed", error="CUDA out of memory: tried to allocate 2 GiB")
    lost = ("final_test_acc", "best_test_acc", "trainable_params")
    settings = {"cfg.lr": 1e-3, "cfg.weight_decay": 1e-4, "cfg.epochs": 100, "device": "NVIDIA H200"}
    records.append({**failed, **dict.fromkeys(lost, float("nan")), **settings})
    return make_results(records), histories(records)


def make_predictions(records: Iterable[dict[str, Any]], images: int = 200, classes: int = 4) -> pd.DataFrame:
    """Return predictions of finished runs whose accuracy is ``final_test_acc`` to the nearest image.

    Correct predictions are more confident than wrong ones.
    """
    return pd.concat([_predictions_of(r, images, classes) for r in records if r["status"] == "done"], ignore_index=True)


def _predictions_of(record: dict[str, Any], images: int, classes: int) -> pd.DataFrame:
    labels = np.arange(images) % classes
    rng = np.random.default_rng(zlib.crc32(record["run_id"].encode()))
    correct = rng.permutation(images) < round(record["final_test_acc"] * images)
    predicted = np.where(correct, labels, (labels + 1) % classes)
    confidence = np.where(correct, 0.9, 0.6)
    frame = pd.DataFrame({"index": np.arange(images), "label": labels, "predicted": predicted})
    return frame.assign(run_id=record["run_id"], confidence=confidence)


def table_named(name: str, records: Iterable[dict[str, Any]], section: str, **options: Any) -> Table:
    """Return the first table of that name in a section of the report on ``records``; the rest is not built.

    ``section`` is the anchor of a suite's section, such as "results", or "records".
    """
    chosen = ReportOptions(**options)
    study = build_study(make_results(records), None, get_selection(chosen.select), (), chosen.imported)
    if section == "records":
        return next(table for table in (build(study) for build in RECORDS) if table.name == name)
    (builders,) = (builders for anchor, _, builders in SUITE_SECTIONS if anchor == section)
    for suite in study.suites:
        view = SuiteView(study, suite, chosen.baseline, chosen.published)
        for build in builders:
            built = build(view) or ()
            for item in (built,) if isinstance(built, (Table, Figure)) else built:
                if isinstance(item, Table) and item.name == name:
                    return item
    raise LookupError(name)


def study_of(records: Records) -> Study:
    """Return the study of records under the rule final."""
    return build_study(make_results(records), None, get_selection("final"))


def table(report: Report, name: str) -> Table:
    """Return the table of a report by its name."""
    return next(table for table in report.tables() if table.name == name)


def cell(result: Table, row: str, column: str) -> Cell:
    """Return the cell in the row of a method and the column of a key."""
    cells = next(r.cells for r in result.rows if r.cells[0].text == row)
    return cells[[c.key for c in result.columns].index(column)]
