"""``shipbench report``: the page contains the command that reproduces it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shipbench.cli.report import ReportChoices
from shipbench.results.store import RunTables, Store
from shipbench.results.tunings import write_tuning
from tests.conftest import Outcome
from tests.results.test_store import make_record


def test_the_command_of_a_report_names_every_choice() -> None:
    assert ReportChoices().command() == (
        "shipbench report --results results --output reports/latest --select final --format md,tex,csv,html,svg "
        "--published default"
    )
    choices = ReportChoices(
        results="/home/me/r,more/s",
        output=Path("o/p"),
        select="oracle",
        formats="md",
        baseline="linear",
        published="all",
        imported="none",
        style="cvpr",
        title="Ours: all",
    )
    assert choices.command() == (
        "shipbench report --results r,more/s --output o/p --select oracle --format md --baseline linear "
        "--published all --style cvpr --title 'Ours: all' --imported none"
    )


@pytest.mark.parametrize(("title", "shown"), [(("--title", "Ours: all"), "--title 'Ours: all'"), ((), "--published")])
def test_the_command_of_a_report_has_its_title(
    shipbench: Callable[..., Outcome], tmp_path: Path, title: tuple[str, ...], shown: str
) -> None:
    Store(tmp_path / "r").write(make_record())
    line = ("report", "--results", tmp_path / "r", "--output", tmp_path / "o", "--format", "md", *title)
    assert shipbench(*line).code == 0
    page = (tmp_path / "o" / "report.md").read_text()
    assert shown in page
    assert ("--title" in page) is bool(title)


def test_a_report_of_several_folders_has_the_runs_of_all(shipbench: Callable[..., Outcome], tmp_path: Path) -> None:
    for name, runs in (("one", "ab"), ("two", "bc")):
        for run in runs:
            Store(tmp_path / name).write(make_record(run_id=run, seed="abc".index(run)))
    folders, output = f"{tmp_path / 'one'}, {tmp_path / 'two'}", tmp_path / "o"
    outcome = shipbench("report", "--results", folders, "--output", output, "--format", "md,csv")
    assert outcome.code == 0
    assert "1 record left out: of a run in several folders, that of the first in which it is done" in outcome.err
    assert "3 records, " in outcome.err
    rows = (output / "results.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == ["a", "b", "c"]
    assert "shipbench report --results one,two --output o" in (output / "report.md").read_text()


def test_predictions_features_and_tunings_of_several_folders_count(
    shipbench: Callable[..., Outcome], tmp_path: Path
) -> None:
    images = list(range(40))
    predictions = {"index": images, "label": [i % 2 for i in images], "predicted": [i % 4 // 2 for i in images]}
    features = {"index": images, "label": predictions["label"], "f0": images, "f1": images[::-1]}
    for name, method in (("one", "linear"), ("two", "ship")):
        store = Store(tmp_path / name)
        record = make_record(run_id=name, method=method, final_test_acc=0.5, n_test=40, overrides="lr=0.01")
        store.write(record, RunTables(predictions=predictions))
        store.write_features(name, features)
    document = {"format": "shipbench-tuning-1", "tuning_id": "t", "winner_settings": {}, "final_runs": ["two"]}
    write_tuning(tmp_path / "two", document)
    folders, output = f"{tmp_path / 'one'},{tmp_path / 'two'}", tmp_path / "o"
    assert shipbench("report", "--results", folders, "--output", output, "--format", "md,csv,svg").code == 0
    assert "SHIP (tuned)" in (output / "report.md").read_text()
    intervals = (output / "tables" / "intervals-vtab-1k.csv").read_text()
    figure = (output / "figures" / "features-vtab-1k.svg").read_text()
    for name in ("Linear probe", "SHIP (tuned)"):
        assert f"ours,{name},50.0," in intervals
        assert name in figure


def test_a_folder_may_have_a_comma_in_its_name(shipbench: Callable[..., Outcome], tmp_path: Path) -> None:
    Store(tmp_path / "a,b").write(make_record())
    outcome = shipbench("report", "--results", tmp_path / "a,b", "--output", tmp_path / "o", "--format", "md")
    assert (outcome.code, "1 record, " in outcome.err) == (0, True)


@pytest.mark.parametrize(
    ("folders", "message"), [(",", "--results is empty"), ("r,missing", "there are no results in missing")]
)
def test_folders_that_are_not_there_are_refused(
    shipbench: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Store("r").write(make_record())
    outcome = shipbench("report", "--results", folders, "--output", "o")
    assert (outcome.code, message in outcome.err, Path("o").exists()) == (2, True, False)
