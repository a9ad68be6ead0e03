"""Studies shared by several tests, built once per session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from shipbench.report import ReportOptions, build_report, write_report
from shipbench.report.document import Report
from tests.report.browser import Page, chromium_page
from tests.report.builders import (
    DEMO_TASKS,
    ablation_records,
    grid,
    histories,
    make_record,
    make_results,
    study_records,
    sweep_records,
)

HOSTILE = (
    "<script>alert(1)</script> & 100% of_a $\\frac{ #~^ \\input{/etc/passwd} ]]> --> | `code` *b* [x](y) "
    "\"q' \x07 Ωé\n\n# head"
)
LIGHT_FORMATS = ("md", "tex", "typ", "csv", "html", "svg")


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    """A page of a browser, which the tests of a module visit one after the other."""
    with chromium_page() as page:
        yield page


@pytest.fixture
def page(tab: Page, report: Path) -> Iterator[Page]:
    """The page of the module's ``report``, about which the browser has to complain of nothing."""
    tab.visit(report, 1440)
    yield tab
    assert tab.complaints() == []


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


@pytest.fixture(scope="session")
def hostile_report() -> Report:
    """A report on records whose texts are all hostile, in finished and in failed runs."""
    texts = ("recipe", "backbone", "backbone_sha256", "image_format", "precision", "device", "git_commit", "switches")
    poison: dict[str, Any] = dict.fromkeys(texts, HOSTILE)
    records = grid((HOSTILE, "vpt-deep", "ship"), ("cifar100", "dtd", "../../" + HOSTILE), (0, 1))
    records += [{**r, **poison, "run_id": f"{HOSTILE}{i}", "cfg.note": HOSTILE} for i, r in enumerate(records)]
    records.append(make_record(HOSTILE, "svhn", suite=HOSTILE, group=HOSTILE, status="failed", error=HOSTILE * 20))
    history = pd.DataFrame(
        [
            {"run_id": r["run_id"], "epoch": epoch, "split": "test", "accuracy": 0.1 * epoch}
            for r in records
            for epoch in (1, 2)
        ]
    )
    return build_report(make_results(records), history, ReportOptions(title=HOSTILE, command=HOSTILE))


@pytest.fixture(scope="session")
def hostile_folder(hostile_report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "inside"
    write_report(hostile_report, folder, ("md", "tex", "csv", "html", "png", "svg"))
    return folder
