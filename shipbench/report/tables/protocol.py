"""The protocol box: what was trained, selected and tested, on which data, with which weights."""

from __future__ import annotations

from typing import TypeAlias

import pandas as pd

from shipbench.counts import counted
from shipbench.record import IMPORTED
from shipbench.report.analysis.cautions import on_test, weights_source
from shipbench.report.analysis.study import Study
from shipbench.report.analysis.tuned import CHOSEN, CONFIRMED, SUPERSEDED
from shipbench.report.wording.names import (
    method_name,
    method_order,
    setting_name,
    suite_name,
    suite_order,
    task_list,
    task_name,
    task_order,
)
from shipbench.report.wording.text import joined, listed, with_seeds

Sentences: TypeAlias = tuple[tuple[str, str], ...]
_NOT_RECORDED = "not recorded"


def protocol_box(study: Study) -> Sentences:
    """Return headed sentences about the counted runs, stating which facts are not recorded; empty without such runs.

    Counted results of other harnesses have a sentence of their own, because their protocols are not known.
    """
    results = study.counted_records
    imported = results["kind"] == IMPORTED
    of_runs = _of_runs(study, results[~imported])
    return (*of_runs, *_imported(results[imported], alone=not of_runs))


def _of_runs(study: Study, runs: pd.DataFrame) -> Sentences:
    if not len(runs):
        return ()
    present = set(runs["suite"])
    return (
        ("Trained", _trained(runs)),
        ("Settings", _settings(study, runs)),
        ("Tested", _tested(study, runs)),
        *((f"Data, {suite_name(suite)}", _data(runs, suite)) for suite in study.suites if suite in present),
        ("Weights", _weights(runs)),
    )


def _imported(results: pd.DataFrame, *, alone: bool) -> Sentences:
    if not len(results):
        return ()
    origins = joined(sorted(set(results["origin"])))
    others = "" if alone else "; the other entries are about the runs alone"
    text = f"{counted(len(results), 'result')} of other harnesses ({origins}), under protocols of their own{others}."
    return (("Imported", text),)


def _numbers(values: pd.Series[float]) -> str:
    numbers = sorted({int(value) for value in values if pd.notna(value) and value > 0})
    if not numbers:
        return "an unrecorded number of"
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"


def _trained(runs: pd.DataFrame) -> str:
    seeds = with_seeds([int(seed) for seed in runs["seed"]])
    together = " (train800 and val200 together for VTAB-1k)" if (runs["suite"] == "vtab-1k").any() else ""
    return f"{counted(len(runs), 'run')}, each on {_numbers(runs['n_train'])} training images{together}, {seeds}."


def _settings(study: Study, runs: pd.DataFrame) -> str:
    """Describe how the settings of ``runs`` were chosen; every run is in exactly one of the numbers."""
    plain = runs.index.isin(study.runs.loc[study.runs["protocol"] == "final", "record"])
    chosen = (runs["tuning"] == CHOSEN) | (runs["protocol"] == "validation") | (runs["tuning"] == CONFIRMED) & ~plain
    unrecorded, test = ~chosen & (runs["recipe"] == ""), ~chosen & on_test(runs)
    fixed = ~chosen & ~unrecorded & ~test
    parts = []
    if unrecorded.any():
        parts.append(
            f"{counted(int(unrecorded.sum()), 'run')} without a recorded recipe; how their settings were chosen is "
            "unknown."
        )
    if fixed.any():
        parts.append(f"{counted(int(fixed.sum()), 'run')} with settings fixed beforehand ({_recipes(runs[fixed])}).")
    if test.any():
        names = joined(sorted({method_name(method) for method in runs.loc[test, "method"]}))
        parts.append(
            f"{counted(int(test.sum()), 'run')} with per-task settings that the authors of {names} published and chose "
            f"on test images ({_recipes(runs[test])})."
        )
    parts += _confirmed(study, runs[~chosen & (runs["tuning"] == CONFIRMED)])
    if chosen.any():
        parts.append(
            f"{counted(int(chosen.sum()), 'run')} with settings chosen on validation images after training on the "
            "other training images, then retrained on all of them."
        )
    parts += _at_ends(study, runs)
    return " ".join([*parts, *_tunings(study)])


def _confirmed(study: Study, runs: pd.DataFrame) -> list[str]:
    """Name the runs whose recipe settings a tuning confirmed, and how the tables show them."""
    twice = runs.index.isin(study.runs.loc[study.runs["protocol"] == "validation", "record"])
    places = (
        (runs[~twice], "one row shows both"),
        (runs[twice], "they appear in two rows of the tables and count once here"),
    )
    return [
        f"For {len(part):,} of these, tuning on validation images chose the recipe's own settings "
        f"({_where(study, part)}); {rows}."
        for part, rows in places
        if len(part)
    ]


def _at_ends(study: Study, runs: pd.DataFrame) -> list[str]:
    """Name the chosen settings beyond which their tuning tried no value."""
    tuned = runs[runs["tuning"].isin((CHOSEN, CONFIRMED))]
    ends = {
        (method_order(method), f"{setting_name(name)} of {method_name(method)} ({end})")
        for run, method in zip(tuned["run_id"], tuned["method"], strict=True)
        for name, end in study.ends.get(run, {}).items()
    }
    if not ends:
        return []
    return [
        f"At an end of its grid, beyond which a better value may lie: {joined([text for _, text in sorted(ends)])}."
    ]


def _tunings(study: Study) -> list[str]:
    """Count the tuning runs, and name the runs whose settings a later tuning superseded."""
    tried = int((study.records["protocol"] == "tuning").sum())
    old = study.records[(study.records["tuning"] == SUPERSEDED) & study.records["accuracy"].isna()]
    parts = [f"Also in the folder: {counted(tried, 'tuning run')}, which never opened the test split."] if tried else []
    if len(old):
        parts.append(
            f"Not counted: {counted(len(old), 'run')} with settings that an earlier tuning chose and a later one "
            f"replaced ({_where(study, old)})."
        )
    return parts


def _where(study: Study, runs: pd.DataFrame) -> str:
    """Name the methods of ``runs``, each with its tasks."""
    pairs = set(zip(runs["suite"], runs["method"], strict=True))
    return "; ".join(
        f"{method_name(method)} on {task_list(part['task'], study.tasks_of(suite))} of {suite_name(suite)}"
        for suite, method in sorted(pairs, key=lambda pair: (suite_order(pair[0]), method_order(pair[1])))
        for part in [runs[(runs["suite"] == suite) & (runs["method"] == method)]]
    )


def _recipes(fixed: pd.DataFrame) -> str:
    """Name the recipes of runs, and count the ablations and the runs with settings changed by hand."""
    ablated = fixed["switches"] != ""
    changed = (fixed["overrides"] != "") & ~ablated
    parts = [f"{joined(sorted(set(fixed['recipe'])))} recipe"]
    if ablated.any():
        parts.append(f"{counted(int(ablated.sum()), 'run')} with parts of the method switched off")
    if changed.any():
        parts.append(f"{counted(int(changed.sum()), 'run')} with settings changed by hand")
    return ", ".join(parts)


def _tested(study: Study, runs: pd.DataFrame) -> str:
    history = study.history[study.history["run_id"].isin(runs["run_id"])]
    tests = history[history["split"] == "test"].groupby("run_id").size()
    during = int((tests > 1).sum())
    also = (
        f" Also tested during training: {counted(during, 'run')}; the oracle gap is what choosing the epoch on these "
        "tests would add."
        if during
        else ""
    )
    return (
        f"On {_numbers(runs['n_test'])} test images per task. The rule {study.selection.name} counts "
        f"{study.selection.sentence}.{also}"
    )


def _data(runs: pd.DataFrame, suite: str) -> str:
    in_suite = runs[["task", "data_fingerprint", "image_format"]][runs["suite"] == suite]
    if not (in_suite["data_fingerprint"].any() or in_suite["image_format"].any()):
        return f"{counted(in_suite['task'].nunique(), 'task')}; neither fingerprints nor image formats are recorded."
    parts = []
    for task in sorted(set(in_suite["task"]), key=task_order):
        of_task = in_suite[in_suite["task"] == task]
        prints = sorted({value[:12] or _NOT_RECORDED for value in of_task["data_fingerprint"]})
        formats = sorted({value or "format not recorded" for value in of_task["image_format"]})
        parts.append(f"{task_name(task)} ({joined(formats)}, fingerprint {joined(prints)})")
    return f"{'; '.join(parts)}."


def _weights(runs: pd.DataFrame) -> str:
    if not (runs["backbone"].any() or runs["backbone_sha256"].any()):
        return "Not recorded."
    distinct = sorted(set(zip(runs["backbone"], runs["backbone_sha256"], runs["checkpoint"], strict=True)))
    return f"{listed([_weights_named(*each) for each in distinct], most=8)}."


def _weights_named(name: str, digest: str, checkpoint: str) -> str:
    source = weights_source(checkpoint)
    return f"{name or _NOT_RECORDED} ({f'{source}; ' if source else ''}sha256 {digest or _NOT_RECORDED})"
