"""Finished runs on other images, compared with the same runs on their own test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import pandas as pd

from shipbench.record import MEAN_PER_CLASS
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.predictions import LoadPredictions, times_correct
from shipbench.report.analysis.study import Study
from shipbench.statistics import PairedTest, holm

_Key = tuple[int, str, str, str]


@dataclass(frozen=True)
class Shift:
    """The runs of an arm on one task, scored on other images: those of ``images``, or its test images if that is empty.

    Accuracies are means over ``seeds`` in percent: ``clean`` on the run's own test images, ``by_severity`` on the
    others, under 0 if they are not corrupted. ``test`` compares both image by image, all severities together; it is
    None for images that are not those of the run, and without predictions. ``adjusted`` is Holm's p-value over all
    shifts of a suite. ``by_class`` tells that the accuracies are means over classes.
    """

    arm: Arm
    task: str
    images: str
    corruption: str
    seeds: tuple[int, ...]
    clean: float
    by_severity: Mapping[int, float]
    test: PairedTest | None = None
    adjusted: float = float("nan")
    by_class: bool = False

    @property
    def shifted(self) -> float:
        """The mean accuracy over the severities."""
        return fmean(self.by_severity.values())


@dataclass(frozen=True)
class _Run:
    """A run with its evaluations of one shift, by severity; accuracies are fractions."""

    run_id: str
    seed: int
    accuracy: float
    metric: str
    evaluations: Mapping[int, tuple[str, float]]


def shifts(study: Study, suite: str, load: LoadPredictions | None) -> list[Shift]:
    """Return the shifts of the main arms of a suite, in the order of arms and tasks."""
    arms = {arm.key: arm for arm in study.arms_of(suite, main=True)}
    order = {key: place for place, key in enumerate(arms)}
    tasks = {task: place for place, task in enumerate(study.tasks_of(suite))}
    measured = [_shift(arms[key[0]], key[1:], runs, load) for key, runs in _by_shift(study, arms).items()]
    measured.sort(key=lambda shift: (order[shift.arm.key], tasks[shift.task], shift.images, shift.corruption))
    adjusted = holm([float("nan") if shift.test is None else shift.test.p_value for shift in measured])
    return [replace(shift, adjusted=value) for shift, value in zip(measured, adjusted, strict=True)]


def _by_shift(study: Study, arms: Mapping[int, Arm]) -> dict[_Key, list[_Run]]:
    """Return the runs of ``arms`` that have evaluations, by arm, task, images and corruption.

    Runs and evaluations without an accuracy are left out, and runs that do not count.
    """
    by_key: dict[_Key, list[_Run]] = {}
    runs = study.runs_of(list(arms.values()))
    parents = _with_accuracy(runs[runs["accuracy"].notna()]).drop_duplicates("run_id").set_index("run_id")
    facts = parents[["arm", "task", "seed", "final_test_acc", "headline_metric"]].to_dict("index")
    evaluated = _with_accuracy(study.evaluated)
    evaluated = evaluated[evaluated["parent_run"].isin(parents.index)]
    # Of two evaluations of the same images, as after a change of the corruptions, the later one counts.
    evaluated = evaluated.sort_values("created", kind="stable").assign(severity=evaluated["severity"].fillna(0))
    evaluated = evaluated.assign(images=_names_of_images(evaluated, parents))
    for run_id, rows in evaluated.groupby("parent_run"):
        parent = facts[str(run_id)]
        for (images, corruption), part in rows.groupby(["images", "corruption"]):
            if images or corruption:
                scores = part[["severity", "run_id", "final_test_acc"]].itertuples(index=False, name=None)
                evaluations = {int(severity): (identifier, accuracy) for severity, identifier, accuracy in scores}
                clean, metric = float(parent["final_test_acc"]), str(parent["headline_metric"])
                run = _Run(str(run_id), int(parent["seed"]), clean, metric, evaluations)
                key = (int(parent["arm"]), str(parent["task"]), str(images), str(corruption))
                by_key.setdefault(key, []).append(run)
    return by_key


def _with_accuracy(records: pd.DataFrame) -> pd.DataFrame:
    return records[(records["status"] == "done") & records["final_test_acc"].notna()]


def _names_of_images(evaluated: pd.DataFrame, parents: pd.DataFrame) -> pd.Series[str]:
    """Return the task whose images each row was evaluated on, empty for the test images of its run.

    Different images under one name are told apart by the start of their fingerprint.
    """
    fingerprints = evaluated["data_fingerprint"]
    other = fingerprints != evaluated["parent_run"].map(parents["data_fingerprint"])
    names = evaluated["task"].where(other, "")
    counts = fingerprints[other].groupby(names[other]).nunique()
    return names.mask(names.isin(counts.index[counts > 1]), names + " (" + fingerprints.str[:6] + ")")


def _shift(arm: Arm, place: tuple[str, str, str], runs: Sequence[_Run], load: LoadPredictions | None) -> Shift:
    task, images, corruption = place
    shared = set.intersection(*(set(run.evaluations) for run in runs))
    # Seeds without a severity in common cannot be averaged; the first one stands alone then.
    runs = sorted(runs, key=lambda run: run.seed) if shared else [min(runs, key=lambda run: run.seed)]
    severities = sorted(shared or runs[0].evaluations)
    return Shift(
        arm,
        task,
        images,
        corruption,
        tuple(run.seed for run in runs),
        100 * fmean(run.accuracy for run in runs),
        {severity: 100 * fmean(run.evaluations[severity][1] for run in runs) for severity in severities},
        None if images or load is None else _test(runs, severities, load),
        by_class=any(run.metric == MEAN_PER_CLASS for run in runs),
    )


def _test(runs: Sequence[_Run], severities: Sequence[int], load: LoadPredictions) -> PairedTest | None:
    """Test the mean accuracy over severities against that on clean images; None without predictions on the same images.

    Each image counts once, weighted by how much more often it is classified correctly.
    """
    if len({run.metric for run in runs}) > 1:
        return None
    clean = [run.run_id for run in runs for _ in severities]
    shifted = [run.evaluations[severity][0] for run in runs for severity in severities]
    predictions = load([*dict.fromkeys(clean), *shifted])
    before, after = (times_correct(predictions, run_ids, runs[0].metric) for run_ids in (clean, shifted))
    return None if before is None or after is None else after.test(before)
