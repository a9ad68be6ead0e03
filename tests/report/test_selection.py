"""Selection rules: the accuracy that each takes from a run, and ``final`` as the default everywhere."""

from __future__ import annotations

import math
import sys
import types
from importlib.metadata import EntryPoint

import pandas as pd
import pytest

from shipbench.errors import InputError
from shipbench.report import ReportOptions, build_report, main_table
from shipbench.report.analysis.normalise import uniform_history, uniform_records
from shipbench.selection import GROUP, SELECTIONS, Final, get_selection, list_selections
from tests.plug_ins import install
from tests.report.builders import make_record, make_results


def select(name: str, *records: dict[str, object], history: pd.DataFrame | None = None) -> list[float]:
    frame = uniform_records(make_results(records))
    return list(get_selection(name).accuracy(frame, uniform_history(history)))


def test_final_takes_the_last_epoch_and_oracle_the_best() -> None:
    record = make_record(accuracy=0.61, best_test_acc=0.66)
    assert select("final", record) == [0.61]
    assert select("oracle", record) == [0.66]


def test_tuning_runs_are_never_counted() -> None:
    record = make_record(protocol="tuning", best_test_acc=0.9)
    for rule in SELECTIONS:
        assert math.isnan(select(rule.name, record)[0])


def test_validation_takes_tuned_runs_and_the_best_validation_epoch() -> None:
    tuned = make_record(accuracy=0.7, protocol="validation")
    watched = make_record(accuracy=0.5, seed=1)
    plain = make_record(accuracy=0.6, seed=2)
    history = pd.DataFrame(
        [
            {"run_id": watched["run_id"], "epoch": epoch, "split": split, "accuracy": accuracy}
            for epoch, val, test in [(0, 0.3, 0.4), (1, 0.8, 0.55), (2, 0.8, 0.99), (3, 0.7, 0.5)]
            for split, accuracy in [("val", val), ("test", test)]
        ]
    )
    values = select("validation", tuned, watched, plain, history=history)
    assert values[:2] == [0.7, 0.55]
    assert math.isnan(values[2])


def test_unknown_rule_is_refused_with_a_suggestion() -> None:
    with pytest.raises(InputError, match="oracle"):
        get_selection("orcale")
    with pytest.raises(InputError, match="unknown rule"):
        ReportOptions(select="best")


def test_the_rule_is_printed_in_every_caption() -> None:
    records = make_results([make_record(task=task, seed=seed) for task in ("dtd", "svhn") for seed in (0, 1)])
    for rule in SELECTIONS:
        report = build_report(records, None, ReportOptions(select=rule.name))
        captions = [item.caption.alone for section in report.sections for item in section.items]
        assert captions
        assert all(f"Selection rule: {rule.name} ({rule.gist})." in caption for caption in captions)


def test_final_is_the_default_everywhere() -> None:
    records = make_results([make_record(accuracy=0.5, best_test_acc=0.9)])
    assert ReportOptions().select == "final"
    assert main_table(records).loc["SHIP", "cifar100"] == 50


def test_a_rule_that_counts_no_run_leaves_tables_out_and_explains_why() -> None:
    report = build_report(make_results([make_record()]), None, ReportOptions(select="validation"))
    assert [table.name for table in report.tables()] == ["missing", "settings"]
    missing = next(table for table in report.tables() if table.name == "missing")
    assert missing.rows[0].cells[0].text == "not counted"


class Cautious(Final):
    """A rule of another package: the final accuracy minus one point."""

    def __init__(self, name: str = "cautious") -> None:
        super().__init__(name, "one point below the last epoch", "test accuracy after the last epoch less one point")

    def accuracy(self, results: pd.DataFrame, history: pd.DataFrame) -> pd.Series:
        return super().accuracy(results, history) - 0.01


@pytest.fixture
def plugged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package with rules, one of which has the name of a built-in rule."""
    module = types.ModuleType("rules_of_others")
    module.Cautious = Cautious  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    values = {"cautious": "Cautious", "final": "Cautious", "other": "Cautious", "lost": "Nothing"}
    install(monkeypatch, *(EntryPoint(name, f"rules_of_others:{value}", GROUP) for name, value in values.items()))


@pytest.mark.usefixtures("plugged_in")
def test_rules_of_other_packages_are_found_and_named() -> None:
    assert list_selections() == ["final", "validation", "oracle", "cautious", "lost", "other"]
    records = make_results([make_record(accuracy=0.5)])
    report = build_report(records, None, ReportOptions(select="cautious"))
    assert "Selection rule: cautious (one point below the last epoch)." in next(report.tables()).caption.alone
    assert main_table(records, select="cautious").loc["SHIP", "cifar100"] == pytest.approx(49)


@pytest.mark.usefixtures("plugged_in")
def test_a_rule_of_ours_cannot_be_replaced() -> None:
    assert get_selection("final") == Final()
    assert type(get_selection("final")) is Final


@pytest.mark.usefixtures("plugged_in")
def test_a_broken_rule_is_named() -> None:
    with pytest.raises(InputError, match=r"'lost' .* cannot be imported"):
        get_selection("lost")
    with pytest.raises(InputError, match="calls itself 'cautious'"):
        get_selection("other")
