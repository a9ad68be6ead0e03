"""The page in a real browser: it fits the screen, logs nothing, requests nothing and is readable in dark mode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.browser import CHROMIUM, Page, chromium_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

_WIDER = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') &&
    e.getBoundingClientRect().right > window.innerWidth + 0.5).map(e => e.tagName + '.' + e.className)"""
_CONTRAST = """(() => {
    const luminance = text => {
        const parts = text.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    const ground = luminance(getComputedStyle(document.querySelector('.item')).backgroundColor);
    const ratio = colour => {
        const ink = luminance(colour);
        return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    };
    const texts = [...document.querySelectorAll('.item h3, .item .caption, .item td span, .item small')]
        .map(e => ratio(getComputedStyle(e).color));
    const probe = document.createElement('span');
    document.body.append(probe);
    const lines = ['ink', 'muted', 'blue', 'vermilion', 'green', 'pink', 'grey', 'purple'].map(name => {
        probe.style.color = `var(--fig-${name})`;
        return ratio(getComputedStyle(probe).color);
    });
    probe.remove();
    return [Math.min(...texts), Math.min(...lines)];
})()"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium_page() as tab:
        yield tab


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_fits_the_screen_and_is_quiet(page: Page, written: Path, width: int, scheme: str) -> None:
    page.visit(written / "index.html", width, scheme=scheme)
    assert page.evaluate("window.innerWidth") == width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(_WIDER) == []
    assert page.complaints() == []
    assert [url for url in page.requests() if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out(page: Page, written: Path, scheme: str) -> None:
    page.visit(written / "index.html", 1440, scheme=scheme)
    text, lines = page.evaluate(_CONTRAST)
    assert text >= 4.5
    assert lines >= 2.5


def test_light_and_dark_differ(page: Page, written: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        page.visit(written / "index.html", 1440, scheme=scheme)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]


def test_wide_tables_scroll_inside_their_own_box(page: Page, written: Path) -> None:
    page.visit(written / "index.html", 390)
    scrolls = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
    assert page.evaluate(scrolls) > 3


@pytest.mark.parametrize("width", [390, 600])
def test_every_figure_fits_a_narrow_screen(page: Page, written: Path, width: int) -> None:
    page.visit(written / "index.html", width)
    scrolls = "[...document.querySelectorAll('.item.figure .scroll')]"
    boxes = page.evaluate(f"{scrolls}.map(e => [e.scrollWidth, e.clientWidth])")
    assert len(boxes) >= 11
    assert all(whole <= shown for whole, shown in boxes)


def test_the_page_prints(page: Page, written: Path, tmp_path: Path) -> None:
    page.visit(written / "index.html", 1440, scheme="dark")
    page.print_pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
