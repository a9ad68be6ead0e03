"""The page as its readers use it, in a real browser: sort, filter, hover, switch, link, keyboard, print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shipbench.report import ReportOptions, build_report, write_report
from shipbench.report.analysis import embedding
from shipbench.report.document import Report
from shipbench.report.drawing.shapes import Grid, Marker, Shape
from shipbench.report.drawing.shapes import Path as Line
from tests.report.browser import CHROMIUM, MAIN_TABLE, Page, click, column, follow
from tests.report.builders import DEMO_TASKS, histories, make_predictions, make_record, make_results, study_records

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def features_of(run_id: str) -> pd.DataFrame:
    values = np.random.default_rng(0).normal(size=(12, 2))
    frame = pd.DataFrame(values, columns=["f0", "f1"]).assign(index=range(12), label=np.arange(12) % 3)
    return frame.assign(run_id=run_id)


@pytest.fixture(scope="module")
def built() -> Iterator[Report]:
    """A study with predictions, histories and features, and SHIP also tuned on validation images."""
    records = study_records(DEMO_TASKS, (0, 1), ("linear", "vpt-shallow", "vpt-deep", "ship"))
    records += [
        {**r, "run_id": f"{r['run_id']}-tuned", "protocol": "validation", "final_test_acc": r["final_test_acc"] - 0.01}
        for r in records
        if r["method"] == "ship"
    ]
    predictions = make_predictions(records)
    for record in records:
        of_run = predictions[predictions["run_id"] == record["run_id"]]
        record["final_test_acc"] = float((of_run["label"] == of_run["predicted"]).mean())
        record["class_names"] = json.dumps(["a|b", "#2", "cat", "dog"])
    load = lambda run_ids: predictions[predictions["run_id"].isin(list(run_ids))]  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "embed", lambda features: features)
        options = ReportOptions(title="Page")
        yield build_report(make_results(records), histories(records), options, predictions=load, features=features_of)


@pytest.fixture(scope="module")
def report(built: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_report(built, folder, ("html",))
    return folder / "index.html"


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study of seventeen methods."""
    methods = ("linear", "vpt-deep", "ship", *(f"method-{i}" for i in range(14)))
    records = [
        make_record(method, task, 0, 0.4 + i / 50, trainable_params=20_000 * (1 + i), train_seconds=30.0 * (1 + i))
        for i, method in enumerate(methods)
        for task in DEMO_TASKS[:1]
    ]
    folder = tmp_path_factory.mktemp("crowded")
    write_report(build_report(make_results(records)), folder, ("html",))
    return folder / "index.html"


def test_a_click_on_a_column_sorts_its_rows_and_says_so(page: Page) -> None:
    button = f"{MAIN_TABLE} .titles th:nth-child(2) button"
    click(page, button)
    falling = [float(text) for text in column(page, 1)]
    assert falling == sorted(falling, reverse=True)
    assert (
        page.evaluate(f"document.querySelector('{MAIN_TABLE} [aria-sort]').getAttribute('aria-sort')") == "descending"
    )
    click(page, button)
    assert [float(text) for text in column(page, 1)] == falling[::-1]
    # Names are read from A to Z first.
    click(page, f"{MAIN_TABLE} .titles th:nth-child(1) button")
    names = column(page, 0)
    assert names == sorted(names, key=str.casefold)
    assert page.evaluate(f"document.querySelectorAll('{MAIN_TABLE} [aria-sort]').length") == 1


def test_numbers_in_names_are_sorted_as_numbers(page: Page) -> None:
    page.evaluate(
        f"document.querySelectorAll('{MAIN_TABLE} tbody tr')"
        ".forEach((row, i) => { row.cells[0].querySelector('span').textContent = `${2 * i + 8} tasks`; })"
    )
    click(page, f"{MAIN_TABLE} .titles th:nth-child(1) button")
    assert [name.split()[0] for name in column(page, 0)][:2] == ["8", "10"]


def test_the_filter_keeps_matching_rows_of_every_table(page: Page) -> None:
    page.evaluate(
        "const box = document.getElementById('find'); box.value = 'linear'; box.dispatchEvent(new Event('input'))"
    )
    assert column(page, 0) == ["Linear probe"]
    assert page.evaluate("location.hash") == "#find=linear"


def test_a_method_that_is_switched_off_leaves_tables_and_figures(page: Page) -> None:
    shown = """[...document.querySelectorAll('[data-key="Linear probe"]')].filter(e => e.checkVisibility()).length"""
    assert page.evaluate(shown) > 10
    click(page, '[data-method="Linear probe"]')
    assert page.evaluate(shown) == 0
    assert "Linear probe" not in column(page, 0)
    click(page, '[data-method="Linear probe"]')
    assert page.evaluate(shown) > 10


def test_the_rule_and_the_mean_switch_sentence_table_and_main_table(page: Page) -> None:
    sentence = "[...document.querySelectorAll('.sentence')].filter(e => e.checkVisibility()).map(e => e.textContent)"
    (first,) = page.evaluate(sentence)
    click(page, 'input[value="tasks"]')
    (second,) = page.evaluate(sentence)
    click(page, 'input[value="oracle"]')
    (third,) = page.evaluate(sentence)
    assert "mean of groups" in first
    assert "\N{NO-BREAK SPACE}%" in first
    assert "mean of tasks" in second
    assert second != third
    assert page.evaluate("document.getElementById('table-main-demo').checkVisibility()") is False
    assert page.evaluate("document.getElementById('table-main-demo-oracle').checkVisibility()") is True
    for part in (".overview", "#table-main-demo-oracle"):
        texts = f"[...document.querySelectorAll('{part} .standing')].filter(e => e.checkVisibility())"
        (rule,) = page.evaluate(f"{texts}.map(e => e.textContent)")
        assert rule.startswith("Selection rule: oracle (best test epoch, chosen on test images)")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_a_method_with_a_long_name_is_hidden_in_tables_too(tab: Page, tmp_path: Path) -> None:
    names = ("vit_base_patch16_224.orig_in21k", "vit_base_patch16_224.augreg_in21k")
    records = [
        *(make_record("vpt-deep", DEMO_TASKS[0], backbone=name) for name in names),
        make_record("vpt-deep", DEMO_TASKS[0], backbone=names[0], image_size=384),
    ]
    write_report(build_report(make_results(records)), tmp_path, ("html",))
    tab.visit(tmp_path / "index.html", 1440)
    before = column(tab, 0)
    click(tab, '[data-method$="[1]"]')
    assert len(before) - len(column(tab, 0)) == 1
    assert tab.complaints() == []


def test_the_pointer_and_the_arrow_keys_show_exact_values(page: Page) -> None:
    spot = """(() => { const e = document.querySelector('.overview .result:not([hidden]) [data-key="SHIP"][data-tip]');
        const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2, e.dataset.tip]; })()"""
    x, y, text = page.evaluate(spot)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + 3, y=y + 2)
    assert page.evaluate("tip.className + ' ' + tip.textContent") == f"shown {text}"
    assert page.evaluate("""document.querySelectorAll('tr.hot[data-key="SHIP"]').length""") > 1
    page.evaluate("document.querySelector('.overview .result:not([hidden]) .drawing').focus()")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", code="ArrowRight")
    first = page.evaluate("tip.textContent")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", code="ArrowRight")
    assert first
    assert page.evaluate("tip.textContent") != first


def test_a_link_names_methods_whatever_their_letters(tab: Page, tmp_path: Path) -> None:
    records = [make_record(method, "digits", 0) for method in ("linear", "a|b", "50%", "ship")]
    write_report(build_report(make_results(records)), tmp_path, ("html",))
    tab.visit(tmp_path / "index.html", 1440)
    for method in ("a|b", "50%"):
        click(tab, f'[data-method="{method}"]')
    follow(tab, "const kept = location.hash; location.hash = ''; location.hash = kept")
    pressed = "[...document.querySelectorAll('.method[aria-pressed=false]')].map(e => e.textContent)"
    assert set(tab.evaluate(pressed)) == {"a|b", "50%"}
    assert tab.complaints() == []


def test_a_link_brings_back_the_same_view(tab: Page, report: Path) -> None:
    tab.visit(report, 1440)
    named = (
        "['table-main-demo', 'rule=oracle', 'mean=tasks', 'find=p', 'sort=table-main-demo-oracle:1:up', off].join('&')"
    )
    follow(tab, f"const off = 'off=' + encodeURIComponent('Linear probe|VPT-shallow'); location.hash = {named}")
    for chosen in ("oracle", "tasks"):
        assert tab.evaluate(f"document.querySelector('input[value={chosen}]').checked") is True
    assert tab.evaluate("document.getElementById('find').value") == "p"
    methods, scores = (column(tab, i, '[data-table="table-main-demo-oracle"]') for i in (0, 1))
    assert set(methods) == {"VPT-deep", "SHIP", "SHIP (tuned)"}
    assert scores == sorted(scores, key=float)
    pressed = "[...document.querySelectorAll('.method[aria-pressed=false]')].map(e => e.textContent)"
    assert tab.evaluate(pressed) == ["Linear probe", "VPT-shallow"]
    # The tables of the other rule are hidden, so the page goes to those that stand in their place.
    tab.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    for link, shown in (("table-main-demo", "table-main-demo-oracle"), ("table-overview-demo", "demo-overview")):
        tab.evaluate("scrollTo(0, document.body.scrollHeight)")
        follow(tab, f"location.hash = '{link}&rule=oracle&mean=tasks'")
        assert 0 <= tab.evaluate(f"document.getElementById('{shown}').getBoundingClientRect().top") < 200, link
    assert tab.complaints() == []


def test_a_link_within_the_page_keeps_the_view(tab: Page, report: Path) -> None:
    tab.visit(report, 1440)
    click(tab, 'input[value="oracle"]')
    click(tab, '[data-method="VPT-shallow"]')
    tab.evaluate("const f = document.getElementById('find'); f.value = 'i'; f.dispatchEvent(new Event('input'))")
    click(tab, '[data-table="table-main-demo-oracle"] .titles th:nth-child(2) button')
    view = "[...document.querySelectorAll('tr')].filter(e => e.checkVisibility()).map(e => e.textContent)"
    before = tab.evaluate(view)
    follow(tab, "document.querySelector('nav a').click()")
    place, _, rest = tab.evaluate("location.hash").partition("&")
    assert tab.evaluate(f"document.querySelector({place!r}) !== null")
    assert [part.partition("=")[0] for part in rest.split("&")] == ["rule", "off", "find", "sort"]
    assert tab.evaluate(view) == before
    # Another view, as from a link: what it does not name is as at the start.
    follow(tab, "location.hash = 'rule=final&find=ship'")
    assert tab.evaluate("document.getElementById('find').value") == "ship"
    assert tab.evaluate("document.querySelectorAll('.method[aria-pressed=false]').length") == 0
    assert tab.evaluate("document.querySelectorAll('[aria-sort]').length") == 0
    assert tab.complaints() == []


def test_one_table_is_sorted_at_a_time_and_small_values_come_first(page: Page) -> None:
    start = column(page, 0)
    click(page, f"{MAIN_TABLE} .titles th:nth-child(2) button")
    assert column(page, 0) != start
    page.evaluate(
        "[...document.querySelectorAll('table[data-table=\"table-cost-demo\"] tbody tr')].slice(0, 2)"
        ".forEach((row, i) => { row.cells[1].querySelector('span').textContent = ['0.001', '<0.001'][i]; })"
    )
    other = 'table[data-table="table-cost-demo"]'
    for _ in range(2):
        click(page, f"{other} .titles th:nth-child(2) button")
    assert column(page, 1, other)[:2] == ["<0.001", "0.001"]
    assert column(page, 0) == start
    assert page.evaluate("document.querySelectorAll('[aria-sort]').length") == 1


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_the_first_screen_holds_sentence_means_and_a_figure(tab: Page, report: Path, width: int, height: int) -> None:
    tab.visit(report, width, height)
    tops = "['.sentence', '.brief .scroll', '.overview svg'].map(s => document.querySelector(s))"
    sentence, rows, figure = tab.evaluate(f"{tops}.map(e => e.getBoundingClientRect()).map(b => [b.top, b.bottom])")
    assert max(sentence[1], rows[1], figure[1]) <= height
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 600, 1440])
def test_scatter_plots_of_many_methods_fit_every_screen_without_scripts_too(
    tab: Page, crowded: Path, width: int
) -> None:
    scatter = "[...document.querySelectorAll('[id^=figure-pareto], [id^=figure-training-cost]')]"
    boxes = f"{scatter}.filter(e => e.checkVisibility()).map(e => e.querySelector('.scroll'))"
    drawings = f"{boxes}.map(e => [...e.querySelectorAll('svg')].filter(s => s.checkVisibility()))"
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.visit(crowded, width, 844)
        shown = tab.evaluate(f"{drawings}.map(list => list.map(svg => svg.getAttribute('class')))")
        wider = tab.evaluate(f"{boxes}.filter(e => e.scrollWidth > e.clientWidth).length")
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
    assert shown == [["narrow" if width < 768 else "broad"]] * 2
    assert wider == 0


def test_figures_by_class_fit_a_phone_with_the_values_of_the_broad_drawing(tab: Page, report: Path) -> None:
    tab.visit(report, 390)
    found = [
        tab.evaluate(f"""(() => {{
            const drawing = document.querySelector('#figure-{name}-demo .drawing');
            const box = drawing.parentElement;
            const texts = kind => [...drawing.querySelectorAll(`.${{kind}} [data-tip]`)].map(e => e.dataset.tip);
            const empty = texts('narrow').every(text => !text);
            drawing.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'ArrowRight', bubbles: true }}));
            const same = JSON.stringify(texts('narrow')) === JSON.stringify(texts('broad'));
            return [box.scrollWidth <= box.clientWidth, empty, same, tip.textContent.length > 0];
        }})()""")
        for name in ("confusion", "class-accuracy", "reliability", "critical-difference", "affinity", "features")
    ]
    assert found == [[True] * 4] * 6


def values_of(shape: Shape) -> list[tuple[str, float, float]]:
    """Return the texts of a shape and their places; cells stand at 0, 0."""
    match shape:
        case Line() if len(shape.tips) > 1:
            return [(text, x, y) for text, (x, y) in zip(shape.tips, shape.points, strict=True)]
        case Marker() if shape.tip:
            return [(shape.tip, shape.x, shape.y)]
        case Grid():
            return [(text, 0, 0) for row in shape.tips for text in row]
    return []


@pytest.mark.parametrize("name", ["reliability", "class-accuracy", "features", "confusion"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_values_of_a_drawing_are_shown_at_their_places(
    tab: Page, report: Path, built: Report, name: str, width: int
) -> None:
    figure = next(each for each in built.figures() if each.name == f"{name}-demo")
    drawing = figure.narrow_drawing if width == 390 else figure.drawing
    assert drawing is not None
    expected = [value for shape in drawing.shapes for value in values_of(shape)][:150]
    tab.visit(report, width)
    shown = tab.evaluate(f"""(() => {{
        const drawing = document.querySelector('#figure-{name}-demo .drawing');
        const svg = [...drawing.querySelectorAll('svg')].find(each => each.checkVisibility());
        svg.scrollIntoView();
        return {json.dumps(expected)}.map(([text, x, y]) => {{
            drawing.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'ArrowRight', bubbles: true }}));
            const place = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM()).x + 12;
            const [left, room] = [parseFloat(tip.style.left), innerWidth - tip.offsetWidth - 8];
            return [tip.textContent, left <= 8 || left >= room - 1 || Math.abs(left - place) < 0.2];
        }});
    }})()""")
    assert [text for text, _ in shown] == [text for text, _, _ in expected]
    assert name == "confusion" or all(near for _, near in shown)


def test_the_arrow_keys_walk_through_the_drawing_that_is_shown(tab: Page, crowded: Path) -> None:
    tab.visit(crowded, 390)
    tab.evaluate("document.querySelector('.overview .result:not([hidden]) .drawing').focus()")
    tab.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", code="ArrowRight")
    left, top, text = tab.evaluate("[parseFloat(tip.style.left), parseFloat(tip.style.top), tip.textContent]")
    box = "(b => [b.left, b.top, b.right, b.bottom])(document.querySelector('.narrow').getBoundingClientRect())"
    edges = tab.evaluate(box)
    assert text
    assert edges[0] < left < edges[2]
    assert edges[1] - 30 < top < edges[3]


def test_the_first_paint_waits_for_the_whole_first_screen(tab: Page, report: Path) -> None:
    tab.visit(report, 390)
    awaited = "document.querySelector(document.querySelector('link[rel=expect][blocking=render]').getAttribute('href'))"
    overview = "[...document.querySelectorAll('.overview')].at(-1)"
    # 4: the element that is awaited follows the last overview.
    assert tab.evaluate(f"{overview}.compareDocumentPosition({awaited}) & 4") == 4


@pytest.mark.parametrize("width", [390, 1440])
def test_sort_buttons_leave_every_table_in_place(tab: Page, report: Path, width: int) -> None:
    boxes = """[...document.querySelectorAll('table, th')].map(e => e.getBoundingClientRect())
        .map(b => [b.width, b.height])"""
    tab.visit(report, width)
    scripted = tab.evaluate(boxes)
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.visit(report, width)
        plain = tab.evaluate(boxes)
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
    assert scripted == plain


def test_no_sign_is_clipped(tab: Page, report: Path) -> None:
    tab.visit(report, 1440)
    clipped = """[...document.querySelectorAll('.sign')].filter(e => {
        const box = document.createRange(); box.selectNodeContents(e);
        const table = e.closest('table').getBoundingClientRect();
        return e.checkVisibility() && box.getBoundingClientRect().right > table.right;
    }).length"""
    assert tab.evaluate("document.querySelectorAll('.sign').length") > 0
    assert tab.evaluate(clipped) == 0


def test_without_scripts_the_page_is_complete(tab: Page, report: Path) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.visit(report, 1440)
        # DevTools may still evaluate.
        assert tab.evaluate("document.querySelectorAll('svg').length") > 5
        assert tab.evaluate("document.querySelector('.methods').checkVisibility()") is False
        assert tab.evaluate(f"document.querySelector('{MAIN_TABLE}').checkVisibility()") is True
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize(
    ("width", "scheme", "rules"),
    [
        (1440, "light", {}),
        # Colours do not depend on the width, and nothing but colours on the scheme.
        (390, "light", {"rules": {"color-contrast": {"enabled": False}}}),
        (1440, "dark", {"runOnly": ["color-contrast"]}),
    ],
)
def test_axe_finds_no_violation(tab: Page, report: Path, width: int, scheme: str, rules: dict[str, Any]) -> None:
    tab.visit(report, width, scheme=scheme)
    tab.evaluate(resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    options = json.dumps({"resultTypes": ["violations"], **rules})
    listed = "({ violations }) => violations.map(v => [v.id, v.nodes.slice(0, 3).map(node => node.html.slice(0, 200))])"
    run = f"axe.run(document, {options}).then({listed})"
    violations: Any = tab.call("Runtime.evaluate", expression=run, awaitPromise=True, returnByValue=True)
    assert violations["result"]["value"] == []


def test_printing_opens_what_is_folded(tab: Page, report: Path, tmp_path: Path) -> None:
    tab.visit(report, 1440)
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.evaluate("document.querySelector('.choices').checkVisibility()") is False
    tab.print_pdf(tmp_path / "page.pdf")
    tab.call("Emulation.setEmulatedMedia", media="")
    assert (tmp_path / "page.pdf").stat().st_size > 20_000
