"""Selection rules: which accuracy of a run counts. The name of the rule is printed with every number.

Other packages add rules through the entry-point group ``shipbench.selections``; the three built-in rules cannot be
replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from shipbench.errors import InputError, unknown
from shipbench.runtime.plug_ins import find_plug_in, make_plug_in, registered

GROUP = "shipbench.selections"


class Selection(Protocol):
    """A rule: its name, two descriptions, and the accuracy it takes from each run.

    To add a rule, implement these members in a class that takes no arguments, and register the class as an entry point
    under the name of the rule.
    """

    @property
    def name(self) -> str:
        """The name, as in ``--select``."""

    @property
    def gist(self) -> str:
        """The accuracy that the rule takes, in a few words for captions."""

    @property
    def sentence(self) -> str:
        """The accuracy that the rule takes, in a sentence for the top of a report."""

    def accuracy(self, results: pd.DataFrame, history: pd.DataFrame) -> pd.Series[float]:
        """Return a test accuracy (fraction) per row of ``results``, NaN where the rule does not apply.

        ``results`` has the columns of the record, ``history`` those of ``shipbench.results.loading.load_history``.
        """


@dataclass(frozen=True)
class Final:
    """Test accuracy after the last epoch; tuning runs are left out."""

    name: str = "final"
    gist: str = "after the last epoch"
    sentence: str = "test accuracy after the last epoch; no epoch is chosen on test images"

    def accuracy(self, results: pd.DataFrame, history: pd.DataFrame) -> pd.Series[float]:
        """Return ``final_test_acc`` of every run except tuning runs."""
        return results["final_test_acc"].where(results["protocol"] != "tuning")


@dataclass(frozen=True)
class Validation:
    """Test accuracy with settings, or else an epoch, chosen on validation images.

    A report assigns the protocol "validation" to final runs that a tuning names; no stored record has it. A shipbench
    run opens val200 or the test split, never both, so choosing an epoch applies only to records from elsewhere whose
    history has both.
    """

    name: str = "validation"
    gist: str = "chosen on validation images"
    sentence: str = "settings or epoch chosen on validation images, never on test images; tested once"

    def accuracy(self, results: pd.DataFrame, history: pd.DataFrame) -> pd.Series[float]:
        """Return the final accuracy of tuned runs, and for others the test accuracy at the best validation epoch."""
        tuned = results["final_test_acc"].where(results["protocol"] == "validation")
        chosen = results["run_id"].map(_test_at_best_validation(history))
        return tuned.fillna(chosen.where(results["protocol"] == "final"))


@dataclass(frozen=True)
class Oracle:
    """The best test accuracy during training, which is what peeking at the test split would report."""

    name: str = "oracle"
    gist: str = "best test epoch, chosen on test images"
    sentence: str = (
        "the best of all test evaluations during training, chosen by looking at the test split: "
        "an upper bound, not a fair result"
    )

    def accuracy(self, results: pd.DataFrame, history: pd.DataFrame) -> pd.Series[float]:
        """Return ``best_test_acc`` of every run except tuning runs."""
        return results["best_test_acc"].where(results["protocol"] != "tuning")


SELECTIONS: tuple[Selection, ...] = (Final(), Validation(), Oracle())


def list_selections() -> list[str]:
    """Return the names of the built-in rules, then those of other packages, sorted."""
    built_in = [rule.name for rule in SELECTIONS]
    return [*built_in, *(name for name in registered(GROUP) if name not in built_in)]


def get_selection(name: str) -> Selection:
    """Return the rule called ``name``; raises ``InputError`` if it does not exist or cannot be imported."""
    built_in = {rule.name: rule for rule in SELECTIONS}
    if name in built_in:
        return built_in[name]
    point = find_plug_in(GROUP, name, "rule")
    if point is None:
        raise unknown("rule", name, list_selections(), "--select: ")
    rule: Selection = make_plug_in(point, "rule")
    if rule.name != name:
        raise InputError(f"rule {name!r} ({point.value}) calls itself {rule.name!r}; register it under that name")
    return rule


def _test_at_best_validation(history: pd.DataFrame) -> dict[str, float]:
    """Map run ids to the test accuracy at the earliest epoch with the highest validation accuracy."""
    wide = history[history["split"].isin(["val", "test"])].pivot_table(
        index=["run_id", "epoch"], columns="split", values="accuracy", aggfunc="last"
    )
    if not {"val", "test"} <= set(wide.columns):
        return {}
    both = wide.dropna(subset=["val", "test"]).reset_index().sort_values("epoch", kind="stable")
    best = both.loc[both.groupby("run_id")["val"].idxmax()]
    return dict(zip(best["run_id"], best["test"].astype(float), strict=True))
