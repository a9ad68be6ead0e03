"""Everything that the tables and figures of a suite read, computed once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from shipbench.counts import counted
from shipbench.published import PUBLISHED_SUITE
from shipbench.record import MEAN_PER_CLASS, SEED_UNKNOWN
from shipbench.report.analysis.agreement import Agreement, agreement
from shipbench.report.analysis.arms import Arm
from shipbench.report.analysis.baselines import Baselines, baselines_of
from shipbench.report.analysis.cautions import cautions
from shipbench.report.analysis.classes import Bin, calibration_bins
from shipbench.report.analysis.comparisons import PairedComparison, paired_comparisons
from shipbench.report.analysis.differences import Ablation, CompleteScores, ablations, changed_tasks, complete_scores
from shipbench.report.analysis.embedding import FEWEST_POINTS, LoadFeatures, StoredFeatures, stored_features
from shipbench.report.analysis.oracle import OracleGap, oracle_gaps
from shipbench.report.analysis.predictions import LoadPredictions, TaskPredictions, left_out, suite_predictions
from shipbench.report.analysis.published import PublishedChoice, PublishedMatch, published_matches
from shipbench.report.analysis.ranks import Ranking, ranking
from shipbench.report.analysis.robustness import Shift, shifts
from shipbench.report.analysis.shots import ALL, FewShots, few_shots
from shipbench.report.analysis.study import Study
from shipbench.report.analysis.sweeps import Sweep, families, sweeps
from shipbench.report.document import Caption
from shipbench.report.wording.captions import caption, footer
from shipbench.report.wording.names import suite_name, task_name
from shipbench.report.wording.text import joined, slug


@dataclass(frozen=True, eq=False)
class SuiteView:
    """One suite of a study as its tables and figures read it; every property is computed on first use and kept.

    ``baseline_method`` is the requested baseline, ``published`` the published rows to show, and ``load_predictions``
    reads stored predictions (None if there are none to read), ``load_features`` stored features.
    """

    study: Study
    suite: str
    baseline_method: str | None = None
    published: PublishedChoice = "default"
    load_predictions: LoadPredictions | None = None
    load_features: LoadFeatures | None = None

    @property
    def name(self) -> str:
        """The printed name of the suite."""
        return suite_name(self.suite)

    @property
    def slug(self) -> str:
        """The suite in file names and anchors."""
        return slug(self.suite)

    @property
    def footer(self) -> str:
        """The small line inside every figure."""
        return footer(self.study.selection, self.suite)

    def caption(self, text: str, details: str = "", *, over_images: bool = False) -> Caption:
        """Return a caption of at most two sentences, with its ``details`` and the suite's standing sentences.

        ``over_images`` says that the accuracies are shares of all images, whatever the metric of a task.
        """
        metrics = self._over_images if over_images else self._metrics
        return caption(text, self.study.selection, self.suite, details=f"{details} {metrics}".strip())

    def over_seeds(self, words: str, arms: Iterable[Arm] | None = None) -> str:
        """Return the ``words`` of a caption on the deviation over seeds, or words on single seeds without a deviation.

        There is none if none of ``arms``, by default the main arms, has several seeds.
        """
        seeds = [self.study.seeds_of(arm) for arm in (self.arms if arms is None else arms)]
        if any(len(of_arm) > 1 for of_arm in seeds):
            return words
        stated = [SEED_UNKNOWN not in of_arm for of_arm in seeds]
        if all(stated):
            return ", one seed each"
        return ", one seed each where it is stated" if any(stated) else ", seeds not stated"

    @cached_property
    def by_class(self) -> list[str]:
        """The tasks whose accuracy is the mean over classes."""
        counted = self.runs[self.runs["accuracy"].notna()]
        per_class = set(counted.loc[counted["headline_metric"] == MEAN_PER_CLASS, "task"])
        return [task for task in self.tasks if task in per_class]

    @property
    def _metrics(self) -> str:
        """A sentence on the tasks whose accuracy is the mean over classes; empty if there are none."""
        tasks = joined([task_name(task) for task in self.by_class])
        return f"The accuracy on {tasks} is the mean of the accuracies of the classes." if tasks else ""

    @property
    def _over_images(self) -> str:
        """A sentence on the same tasks where the accuracy over images is shown; empty if there are none."""
        tasks = joined([task_name(task) for task in self.by_class])
        return f"The accuracy on {tasks} is here the share of all images, not the mean over classes." if tasks else ""

    @cached_property
    def arms(self) -> list[Arm]:
        """The arms of the main table, in table order."""
        return self.study.arms_of(self.suite, main=True)

    @cached_property
    def imported(self) -> list[Arm]:
        """The imported arms that stand beside those of the main table."""
        return self.study.imported_beside(self.suite)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The runs of the main arms, failed ones included."""
        return self.study.runs_of(self.arms)

    @cached_property
    def cautions(self) -> tuple[str, ...]:
        """The cautions that readers of a table with all main arms need."""
        return cautions(self.runs)

    @cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The groups of the suite with their tasks."""
        return self.study.groups_of(self.suite)

    @cached_property
    def tasks(self) -> list[str]:
        """The tasks of the suite, group by group."""
        return self.study.tasks_of(self.suite)

    @cached_property
    def compared(self) -> list[Arm]:
        """The main arms that are ranked and tested against each other: those with one number of shots.

        The requested baseline has that number, if it was run: all images if several arms have results with them, else
        the number with which most arms have results, and of equals the highest.
        """
        by_baseline = [arm for arm in self.arms if arm.method == self.baseline_method] or self.arms
        counts = Counter(arm.shots for arm in self.arms if len(self.study.accuracies(arm)))

        def order(shots: int) -> tuple[bool, int, float]:
            return shots == ALL and counts[ALL] > 1, counts[shots], shots or float("inf")

        chosen = max((arm.shots for arm in by_baseline), key=order, default=ALL)
        return [arm for arm in self.arms if arm.shots == chosen]

    @property
    def shots_note(self) -> str:
        """A sentence on the main arms that are not compared; empty if all arms have the same number of shots."""
        (compared,) = {arm.shots for arm in self.compared} or {ALL}
        others = {arm.shots for arm in self.arms} - {compared}
        names = [counted(shots, "shot") if shots else "all images" for shots in (compared, *sorted(others - {ALL}))]
        names += ["all images"] if ALL in others else []
        return f"Marks, ranks and tests are for {names[0]}, not for {joined(names[1:])}." if others else ""

    @cached_property
    def baseline(self) -> Arm | None:
        """The first arm of the requested method, by default of VPT-deep or else of any; None if it was not run."""
        first = {arm.method: arm for arm in reversed(self.compared)}
        if self.baseline_method is not None:
            return first.get(self.baseline_method)
        return first.get("vpt-deep") or next(iter(self.compared), None)

    @cached_property
    def baselines(self) -> Baselines:
        """The arms of the baseline's method that the compared arms are compared with; empty without a baseline."""
        if self.baseline is None:
            return Baselines("", {})
        return baselines_of(self.study, self.compared, self.baseline.method)

    @cached_property
    def comparison_notes(self) -> tuple[str, ...]:
        """Notes on what the compared arms are compared with, and on those with results that have no comparison."""
        with_results = [arm for arm in self.compared if len(self.study.accuracies(arm))]
        compared = {comparison.arm for comparison in self.comparisons}
        return tuple(self.baselines.notes(with_results, compared, self.changed)) if self.baseline else ()

    @cached_property
    def changed(self) -> Mapping[Arm, Sequence[str]]:
        """The tasks on which compared arms differ from their baselines in images or metric, for arms that have any."""
        tasks = {arm: changed_tasks(self.study, arm, baseline) for arm, baseline in self.baselines.of.items()}
        return {arm: changed for arm, changed in tasks.items() if changed}

    @cached_property
    def parts(self) -> dict[int, tuple[str, ...]]:
        """The tasks of every main and imported arm that has several of the suite and lacks others, by key."""
        tasks = {arm.key: self.study.part_of(arm) for arm in (*self.arms, *self.imported)}
        return {key: names for key, names in tasks.items() if len(names) > 1}

    @cached_property
    def predictions(self) -> Mapping[str, TaskPredictions]:
        """The stored predictions by task, for tasks that have any."""
        baselines = dict.fromkeys([*filter(None, [self.baseline]), *self.baselines.of.values()])
        return suite_predictions(self.study, self.suite, list(baselines), self.load_predictions)

    @cached_property
    def prediction_notes(self) -> tuple[str, ...]:
        """A note on arms and tasks without usable predictions, if predictions can be read and some lack them."""
        note = left_out(self.study, self.suite, self.predictions) if self.load_predictions else ""
        return (note,) if note else ()

    @cached_property
    def calibration(self) -> Mapping[str, Mapping[int, Sequence[Bin]]]:
        """The bins of confidence by task and arm key, for arms that recorded it."""
        keys = {arm.key: arm for arm in self.arms}
        return {
            task: {key: calibration_bins(part, keys[key]) for part in predictions.groups for key in part.confidence}
            for task, predictions in self.predictions.items()
            if any(part.confidence for part in predictions.groups)
        }

    @cached_property
    def comparisons(self) -> list[PairedComparison]:
        """Every compared arm against its baseline; empty without a baseline."""
        pairs = ((arm, baseline) for arm, baseline in self.baselines.of.items() if arm != baseline)
        return paired_comparisons(self.study, pairs, self.predictions)

    @cached_property
    def complete_scores(self) -> CompleteScores:
        """The mean accuracies of the compared arms without gaps."""
        return complete_scores(self.study, self.compared)

    @cached_property
    def ranking(self) -> Ranking | None:
        """The average ranks of the compared arms; None with too few arms or shared tasks."""
        return ranking(self.study, self.compared, self.complete_scores)

    @cached_property
    def oracle_gaps(self) -> list[OracleGap]:
        """The oracle gap of every main arm that was tested during training."""
        return oracle_gaps(self.study, self.suite)

    @cached_property
    def agreement(self) -> Agreement:
        """The agreement of predictions for every pair of main arms."""
        return agreement(self.study, self.suite, self.predictions)

    @cached_property
    def published_matches(self) -> list[PublishedMatch]:
        """The published rows to show; other suites than theirs have none."""
        return published_matches(self.study, self.arms, self.published) if self.suite == PUBLISHED_SUITE else []

    @cached_property
    def ablations(self) -> list[Ablation]:
        """The ablations of the suite, one per setup."""
        return ablations(self.study, self.suite)

    @cached_property
    def families(self) -> list[list[Arm]]:
        """The arms with varied settings, each family with its unchanged arm."""
        return families(self.study, self.suite)

    @cached_property
    def sweeps(self) -> list[Sweep]:
        """The sweeps of single settings."""
        return sweeps(self.study, self.suite)

    @cached_property
    def shifts(self) -> list[Shift]:
        """The evaluations of finished runs on other images, beside their clean test images."""
        return shifts(self.study, self.suite, self.load_predictions)

    @cached_property
    def few_shots(self) -> FewShots | None:
        """Accuracies by number of shots; None unless a method has runs for several."""
        return few_shots(self.study, self.suite)

    @cached_property
    def features(self) -> list[StoredFeatures]:
        """The stored features of main arms that have enough images to draw, a run per arm and task."""
        stored = stored_features(self.study, self.suite, self.load_features)
        return [each for each in stored if len(each.labels) >= FEWEST_POINTS]
