"""Studies shared by several tests, built once per session."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from shipbench.report import ReportOptions, build_report, write_report
from shipbench.report.document import Report
from tests.report.builders import (
    DEMO_TASKS,
    ablation_records,
    histories,
    make_results,
    study_records,
    sweep_records,
)

LIGHT_FORMATS = ("md", "tex", "typ", "csv", "html", "svg")


@pytest.fixture(scope="session")
def demo_study() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Results and history of a demo study with ablations, a sweep, one failed and one missing run."""
    records = study_records(DEMO_TASKS, (0, 1), ("linear", "vpt-deep", "ship"))
    records += ablation_records(DEMO_TASKS, (0, 1), ("no-hierarchy", "coupled-attention"))
    records += sweep_records(DEMO_TASKS, (0,), "prompt_length", (5, 20), 10)
    lost = next(r for r in records if (r["method"], r["task"], r["seed"]) == ("linear", "digits", 1))
    lost |= {"status": "failed", "error": "boom", "final_test_acc": None, "best_test_acc": None}
    return make_results(records), histories(records)


@pytest.fixture(scope="session")
def demo_report(demo_study: tuple[pd.DataFrame, pd.DataFrame]) -> Report:
    return build_report(*demo_study, ReportOptions(title="Demo", command="shipbench report"))


@pytest.fixture(scope="session")
def written(demo_report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo report on disk in every format that needs no matplotlib."""
    folder = tmp_path_factory.mktemp("report")
    write_report(demo_report, folder, LIGHT_FORMATS)
    return folder
