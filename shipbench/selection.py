"""Which accuracy of a run counts: small named rules whose names are printed wherever a number is shown.

Other packages add rules through the entry-point group ``shipbench.selections``; the three here cannot be replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

import pandas as pd

from shipbench.errors import InputError, did_you_mean

GROUP = "shipbench.selections"


class Selection(Protocol):
    """One rule: a name, a sentence for captions, and the accuracy it takes from each run.

    Implement these members and register the class (no arguments) as an entry point under the rule's name.
    """

    @property
    def name(self) -> str:
        """Return the name, as in ``--select``."""

    @property
    def gist(self) -> str:
        """Return what the rule takes in a few words, for captions."""

    @property
    def sentence(self) -> str:
        """Return what the rule takes in a sentence, for readers who meet it first."""

    def accuracy(self, results: pd.DataFrame, history: pd.DataFrame) -> pd.Series[float]:
        """Return a test accuracy (fraction) per row of ``results``; NaN where the rule does not apply."""


@dataclass(frozen=True)
class Final:
    """Test accuracy after the last epoch; runs that only tune settings are left out."""

    name: str = "final"
    gist: str = "after the last epoch"
    sentence: str = "test accuracy after the last epoch; no epoch is chosen on test images"

    def accuracy(self, results: pd.DataFrame, history: pd.DataFrame) -> pd.Series[float]:
        """Return ``final_test_acc`` of every run that was trained to be tested."""
        return results["final_test_acc"].where(results["protocol"] != "tuning")


@dataclass(frozen=True)
class Validation:
    """What validation images chose: settings, or else the epoch.

    A report gives runs on the 1000 that a tuning names the protocol "validation"; no stored record has it. A run of
    shipbench's own opens val200 or the test split, never both, so it has no epoch to choose: the second half is for
    records of other origin whose history has both.
    """

    name: str = "validation"
    gist: str = "chosen on validation images"
    sentence: str = (
        "settings or epoch chosen on validation images (train800 / val200), never on test images; tested once"
    )

    def accuracy(self, results: pd.DataFrame, history: pd.DataFrame) -> pd.Series[float]:
        """Return the final accuracy of tuned runs, and elsewhere the test accuracy at the best val epoch."""
        tuned = results["final_test_acc"].where(results["protocol"] == "validation")
        chosen = results["run_id"].map(_test_at_best_validation(history))
        return tuned.fillna(chosen.where(results["protocol"] == "final"))


@dataclass(frozen=True)
class Oracle:
    """The best test evaluation seen during training: what peeking at the test split would report."""

    name: str = "oracle"
    gist: str = "best test epoch, chosen on test images"
    sentence: str = (
        "the best of all test evaluations during training, chosen by looking at the test split: "
        "an upper bound, not a fair result"
    )

    def accuracy(self, results: pd.DataFrame, history: pd.DataFrame) -> pd.Series[float]:
        """Return ``best_test_acc`` of every run that was trained to be tested."""
        return results["best_test_acc"].where(results["protocol"] != "tuning")


SELECTIONS: tuple[Selection, ...] = (Final(), Validation(), Oracle())


def list_selections() -> list[str]:
    """Return the names of all rules: ours, then those of other packages, sorted."""
    own = [rule.name for rule in SELECTIONS]
    return [*own, *sorted(_installed().keys() - set(own))]


def get_selection(name: str) -> Selection:
    """Return the rule called ``name``; raises ``InputError`` if there is none, or if it cannot be imported."""
    own = {rule.name: rule for rule in SELECTIONS}
    if name in own:
        return own[name]
    installed = _installed()
    if name not in installed:
        known = list_selections()
        raise InputError(f"--select: unknown rule {name!r}{did_you_mean(name, known)}; use one of {', '.join(known)}")
    try:
        rule: Selection = installed[name].load()()
    except (ImportError, AttributeError) as error:
        raise InputError(f"rule {name!r} ({installed[name].value}) cannot be imported: {error}") from error
    if rule.name != name:
        raise InputError(f"rule {name!r} calls itself {rule.name!r}; a rule is printed under the name it is asked for")
    return rule


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


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
