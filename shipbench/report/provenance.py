"""What a set of runs mixes that should not differ: said in words, never hidden."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from shipbench.report.labels import counted, joined, method_name, method_order, task_name, task_order

_NOT_RECORDED = "not recorded"


def mixtures(runs: pd.DataFrame) -> tuple[str, ...]:
    """Return one sentence for every kind of difference between ``runs`` that readers must know about."""
    done = runs[runs["status"] == "done"]
    code = done["shipbench_version"].where(done["shipbench_version"] != "", _NOT_RECORDED)
    commit = done["git_commit"].str.slice(0, 10)
    weights = done["backbone"] + done["backbone_sha256"].str.slice(0, 12).map(_in_parentheses)
    size = done["image_size"].map(lambda value: "" if pd.isna(value) else f"{value:g} px")
    found = (
        _fingerprints(done),
        _mixed(done, done["image_format"], "image formats", _tasks),
        _mixed(done, weights, "backbone weights", _methods),
        _mixed(done, code + commit.map(_in_parentheses), "versions of the code", _methods),
        _mixed(done, size, "image sizes", _methods),
        _mixed(done, done["precision"], "numerical precisions", _methods),
    )
    return tuple(sentence for sentence in found if sentence)


def few(names: Sequence[str], most: int = 4) -> str:
    """Name at most ``most`` things and count the rest."""
    if len(names) <= most:
        return joined(names)
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"


def _in_parentheses(text: str) -> str:
    return f" ({text})" if text else ""


def _fingerprints(done: pd.DataFrame) -> str:
    copies = done.groupby("task")["data_fingerprint"].nunique()
    names = [task_name(task) for task in sorted(copies[copies > 1].index, key=task_order)]
    return f"Mixed data fingerprints: more than one copy of the data for {few(names)}." if names else ""


def _mixed(done: pd.DataFrame, values: pd.Series[str], what: str, who: Callable[[pd.DataFrame], list[str]]) -> str:
    known = values.where(values != "", _NOT_RECORDED)
    counts = known.value_counts()
    if len(counts) < 2:
        return ""
    order = sorted(counts.index, key=lambda value: (-counts[value], value))
    parts = [f"{value} ({counted(int(counts[value]), 'run')}: {few(who(done[known == value]))})" for value in order]
    return f"Mixed {what}: {'; '.join(parts)}."


def _tasks(runs: pd.DataFrame) -> list[str]:
    return [task_name(task) for task in sorted(set(runs["task"]), key=task_order)]


def _methods(runs: pd.DataFrame) -> list[str]:
    return [method_name(method) for method in sorted(set(runs["method"]), key=method_order)]
