"""Cautions about a set of runs.

They name records without a seal, random weights, settings chosen on test images, and mixtures that should not be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pandas as pd

from shipbench.backbones.pinned import RANDOM
from shipbench.counts import counted
from shipbench.published import CHOSEN_ON_TEST
from shipbench.record import SHIPBENCH, UNSEALED
from shipbench.report.wording.names import method_name, method_order, task_name, task_order
from shipbench.report.wording.text import listed

ON_TEST = "§"
FOREIGN = "¶"
_NOT_RECORDED = "not recorded"


def cautions(runs: pd.DataFrame) -> tuple[str, ...]:
    """Return the cautions that readers of a table with ``runs`` need, one sentence each."""
    done = _finished(runs)
    sentences = (*foreign_records(done), _random_weights(done), _chosen_on_test(done), *_mixtures(done))
    return tuple(sentence for sentence in sentences if sentence)


def foreign_records(runs: pd.DataFrame) -> tuple[str, ...]:
    """Return the sentences of ``without_seal`` with the sign of such records in tables."""
    return tuple(f"{FOREIGN} {sentence}" for sentence in without_seal(runs))


def without_seal(runs: pd.DataFrame) -> tuple[str, ...]:
    """Return a sentence about finished runs without the seal of shipbench, and one about those of other programs."""
    done = _finished(runs)
    foreign = done[done["origin"] != SHIPBENCH]
    unsealed, elsewhere = foreign[foreign["origin"] == UNSEALED], foreign[foreign["origin"] != UNSEALED]
    sentences = (
        "Unsealed records: {runs} have lost the seal of shipbench, because another program has written them again; "
        "nothing vouches for their values.",
        "Records from elsewhere: {runs} were recorded by another program; nothing vouches for their values and their "
        "protocol.",
    )
    return tuple(
        sentence.format(runs=f"{counted(len(part), 'run')} ({listed(_methods(part))})")
        for sentence, part in zip(sentences, (unsealed, elsewhere), strict=True)
        if len(part)
    )


def weights_source(checkpoint: str) -> str:
    """Name the source of a backbone's weights; empty for the pretrained weights of that name."""
    if checkpoint == RANDOM:
        return "random weights, never pretrained"
    return f"from {checkpoint}" if checkpoint else ""


def on_test(runs: pd.DataFrame) -> pd.Series[bool]:
    """Return, for every run, whether the authors of its recipe chose the settings on test images."""
    pairs = zip(runs["method"], runs["recipe"], strict=True)
    return pd.Series([pair in CHOSEN_ON_TEST for pair in pairs], index=runs.index, dtype=bool)


def _finished(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the finished runs, each once: a run that a tuning confirmed has a row for the recipe and a tuned one."""
    return runs[runs["status"] == "done"].drop_duplicates("run_id")


def _random_weights(done: pd.DataFrame) -> str:
    runs = done[done["checkpoint"] == RANDOM]
    if not len(runs):
        return ""
    return (
        f"Random weights: {counted(len(runs), 'run')} ({listed(_methods(runs))}) on a backbone that was never "
        "pretrained; their accuracies say nothing about the pretrained weights of that name."
    )


def _chosen_on_test(done: pd.DataFrame) -> str:
    runs = done[on_test(done)]
    if not len(runs):
        return ""
    return (
        f"{ON_TEST} Settings chosen on test images: {counted(len(runs), 'run')} of {listed(_methods(runs))} with "
        "per-task settings that the authors published and chose by test accuracy. They are not comparable with "
        "settings fixed beforehand or chosen on validation images."
    )


def _mixtures(done: pd.DataFrame) -> tuple[str, ...]:
    """Return a sentence for every property that must not differ between runs, empty where it does not."""
    code = done["shipbench_version"].where(done["shipbench_version"] != "", _NOT_RECORDED)
    commit = done["git_commit"].str.slice(0, 10)
    weights = done["backbone"] + done["backbone_sha256"].str.slice(0, 12).map(_in_parentheses)
    size = done["image_size"].map(lambda value: "" if pd.isna(value) else f"{value:g} px")
    return (
        _fingerprints(done),
        _metrics(done),
        _treatments(done),
        _mixed(done, done["image_format"], "image formats", _tasks),
        _mixed(done, weights, "backbone weights", _methods),
        _mixed(done, code + commit.map(_in_parentheses), "versions of the code", _methods),
        _packages(done),
        _mixed(done, size, "image sizes", _methods),
        _mixed(done, done["precision"], "numerical precisions", _methods),
    )


def _in_parentheses(text: str) -> str:
    return f" ({text})" if text else ""


def _fingerprints(done: pd.DataFrame) -> str:
    recorded = done["data_fingerprint"].where(done["data_fingerprint"] != "")
    copies = recorded.groupby(done["task"]).nunique()
    names = [task_name(task) for task in sorted(copies[copies > 1].index, key=task_order)]
    return f"Mixed data fingerprints: more than one copy of the data for {listed(names)}." if names else ""


def _metrics(done: pd.DataFrame) -> str:
    metrics = done["headline_metric"].groupby(done["task"]).nunique()
    names = [task_name(task) for task in sorted(metrics[metrics > 1].index, key=task_order)]
    if not names:
        return ""
    return f"Mixed metrics: some runs on {listed(names)} are scored by the accuracy, others by its mean over classes."


def _treatments(done: pd.DataFrame) -> str:
    stated: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for task, shots, version in zip(done["task"], done["shots"].fillna(0), done["data_version"], strict=True):
        stated[task, "draw", f"{shots:g}"].add(version.draw)
        stated[task, "resize"].add(version.resize)
        stated[task, "augment"].add(version.augment)
    mixed = {task for (task, *_), values in stated.items() if len(values - {""}) > 1}
    names = [task_name(task) for task in sorted(mixed, key=task_order)]
    return f"Mixed treatments: runs on {listed(names)} differ in the images drawn, resize or augment." if names else ""


def _packages(done: pd.DataFrame) -> str:
    """Return a sentence about methods whose runs were made by several releases of their package."""
    peft = "peft " + done["peft_version"].where(done["peft_version"] != "")
    packages = done["method_package"].where(done["method_package"] != "", peft).dropna()
    mixed = packages[packages.groupby(done["method"]).transform("nunique") > 1]
    return _mixed(done.loc[mixed.index], mixed, "releases of a method's package", _methods)


def _mixed(done: pd.DataFrame, values: pd.Series[str], what: str, name: Callable[[pd.DataFrame], list[str]]) -> str:
    recorded = values.where(values != "", _NOT_RECORDED)
    counts = recorded.value_counts()
    if len(counts) < 2:
        return ""
    order = sorted(counts.index, key=lambda value: (-counts[value], value))
    parts = [
        f"{value} ({counted(int(counts[value]), 'run')}: {listed(name(done[recorded == value]))})" for value in order
    ]
    return f"Mixed {what}: {'; '.join(parts)}."


def _tasks(runs: pd.DataFrame) -> list[str]:
    return [task_name(task) for task in sorted(set(runs["task"]), key=task_order)]


def _methods(runs: pd.DataFrame) -> list[str]:
    return [method_name(method) for method in sorted(set(runs["method"]), key=method_order)]
