"""What the controls of the page show in a real browser: settings apart, and methods with several series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shipbench.report import build_report, write_report
from tests.report.browser import CHROMIUM, Page, click, column, follow
from tests.report.builders import (
    DEMO_TASKS,
    make_predictions,
    make_record,
    make_results,
    study_records,
    sweep_records,
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
MAIN = 'article[id^="table-main-demo"]:not([hidden]) table'
MEANS = "#demo-overview .result:not([hidden]) table"
DEFAULT, TUNED = {"Linear probe", "VPT-deep", "SHIP"}, {"Linear probe (tuned)", "SHIP (tuned)"}


def tuned(record: dict[str, Any]) -> dict[str, Any]:
    better = min(record["final_test_acc"] + 0.01, 1.0)
    changes = {"protocol": "validation", "final_test_acc": better, "best_test_acc": better}
    return {**record, **changes, "run_id": f"{record['run_id']}-tuned"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of default and tuned settings with a sweep, and one of few shots, all default, with many classes."""
    records = study_records(DEMO_TASKS, (0,), ("linear", "vpt-deep", "ship"))
    records += [tuned(record) for record in records if record["method"] != "vpt-deep"]
    records += sweep_records(DEMO_TASKS, (0,), "prompt_length", (5, 20), 10)
    few = [make_record("ship", "bugs", 0, 0.1 + 0.1 * shots, shots=shots, num_classes=24) for shots in (1, 4)]
    predictions = make_predictions(few, images=240, classes=24)
    load = lambda run_ids: predictions[predictions["run_id"].isin(list(run_ids))]  # noqa: E731
    folder = tmp_path_factory.mktemp("choices")
    built = build_report(make_results([*records, *few]), predictions=load)
    write_report(built, folder, ("html",))
    return folder / "index.html"


def sentences(page: Page) -> list[str]:
    shown = "[...document.querySelectorAll('.sentence')].filter(e => e.checkVisibility())"
    return page.evaluate(f"{shown}.map(e => e.textContent)")


def shown(page: Page, selector: str) -> int:
    return page.evaluate(f"[...document.querySelectorAll({selector!r})].filter(e => e.checkVisibility()).length")


@pytest.mark.parametrize(("choice", "methods"), [("default", DEFAULT), ("tuned", TUNED), ("all", DEFAULT | TUNED)])
def test_the_settings_have_a_sentence_means_and_marks_of_their_own(page: Page, choice: str, methods: set[str]) -> None:
    click(page, 'input[value="tuned"]')
    click(page, f'input[name="settings"][value="{choice}"]')
    best = {"default": "SHIP", "tuned": "SHIP (tuned)", "all": "SHIP (tuned)"}[choice]
    assert sentences(page)[0].startswith(f"{best} is best on Demo suite (mean of groups, 6 tasks)")
    for table in (MAIN, MEANS):
        assert set(column(page, 0, table)) == methods
        marks = f"[...document.querySelectorAll('{table} tr:not([hidden])')].map(row => row.querySelector('.best'))"
        assert page.evaluate(f"{marks}.filter(Boolean).length"), table
    assert shown(page, "#demo-overview svg") == 1
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    # The table of settings names the method alone, so all its rows stay.
    rows = 'table[data-table^="table-settings"] tbody tr'
    assert shown(page, f"{rows}[hidden]") == 0
    assert page.evaluate(f"document.querySelectorAll('{rows}').length") > 1


def test_a_link_may_name_the_settings_alone_or_with_the_rule(page: Page) -> None:
    follow(page, "location.hash = 'settings=tuned'")
    assert page.evaluate("document.querySelector('input[value=tuned]').checked") is True
    assert set(column(page, 0, MAIN)) == TUNED
    assert shown(page, '.drawing [data-key="SHIP"]') == 0
    follow(page, "location.hash = 'table-main-demo&rule=oracle&settings=default'")
    assert page.evaluate(f"document.querySelector('{MAIN}').dataset.table") == "table-main-demo-oracle--default"
    assert set(column(page, 0, MAIN)) == DEFAULT
    (standing,) = page.evaluate(
        "[...document.querySelectorAll('#demo-overview .standing')].filter(e => e.checkVisibility())"
        ".map(e => e.textContent)"
    )
    assert standing.startswith("Selection rule: oracle")
    follow(page, "location.hash = ''")
    assert set(column(page, 0, MAIN)) == DEFAULT | TUNED


def test_methods_that_are_switched_off_stay_off_with_other_settings(page: Page) -> None:
    click(page, '[data-method="Linear probe"]')
    for choice, methods in (("default", DEFAULT), ("tuned", TUNED), ("all", DEFAULT | TUNED)):
        click(page, f'input[name="settings"][value="{choice}"]')
        assert set(column(page, 0, MEANS)) == methods - {"Linear probe"}
        buttons = "[...document.querySelectorAll('.method')].filter(e => e.checkVisibility()).map(e => e.textContent)"
        assert {name for name in page.evaluate(buttons) if "shot" not in name} == methods
    assert page.evaluate("location.hash") == "#off=Linear%2520probe"


def test_a_suite_without_tuned_settings_says_so(page: Page) -> None:
    before = sentences(page)[1]
    click(page, 'input[value="tuned"]')
    assert sentences(page)[1] == "own has no result with these settings."
    click(page, 'input[value="default"]')
    assert sentences(page)[1] == before


def test_swept_settings_are_switched_off_with_their_method(page: Page) -> None:
    curves = '#figure-sweeps-demo [data-key="SHIP"]'
    # Two lines, the points, the ring of the recipe and the three parts of the key.
    assert shown(page, curves) >= 6
    assert page.evaluate("document.querySelectorAll('#figure-sweeps-demo [data-tip]:not([data-key])').length") == 0
    click(page, '[data-method="SHIP"]')
    assert shown(page, curves) == 0


def test_a_line_over_shots_is_switched_off_with_the_last_of_its_methods(page: Page) -> None:
    line, row = "#figure-shots-own [data-key]", "#table-shots-own tr[data-key]"
    hover = "document.querySelector('#table-main-own tr[data-key=\"SHIP (4 shots)\"] th').dispatchEvent"
    page.evaluate(f"{hover}(new PointerEvent('pointermove', {{ bubbles: true }}))")
    assert page.evaluate(f"document.querySelectorAll('{line}:not(.hot)').length") == 0
    lit = '#table-main-own tr[data-key="SHIP (1 shot)"].hot'
    assert shown(page, lit) == 0
    page.evaluate(
        f"document.querySelector('{row} th').dispatchEvent(new PointerEvent('pointermove', {{ bubbles: true }}))"
    )
    assert shown(page, lit) == 1
    click(page, '[data-method="SHIP (1 shot)"]')
    assert shown(page, line) >= 4
    assert shown(page, row) == 1
    click(page, '[data-method="SHIP (4 shots)"]')
    assert shown(page, line) == 0
    assert shown(page, row) == 0


def test_the_values_of_a_large_confusion_matrix_are_those_that_it_has(page: Page) -> None:
    page.evaluate("document.querySelector('#figure-confusion-own .drawing').focus()")
    values = []
    for _ in range(3):
        page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", code="ArrowRight")
        values.append(page.evaluate("tip.textContent").partition(":")[0])
    assert values == ["class 0 as class 0", "class 0 as class 1", "class 1 as class 1"]
