"""Markdown, CSV, HTML and SVG: correct structure, and no injection through texts of records."""

from __future__ import annotations

import csv
import html.parser
import io
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipbench.report.document import (
    MISSING,
    Caption,
    Cell,
    Column,
    Report,
    Row,
    Section,
    Table,
    decimal_padding,
    without_empty_columns,
)
from shipbench.report.drawing.palette import THEME
from shipbench.report.drawing.shapes import Drawing, Grid, Marker, Shape
from shipbench.report.drawing.shapes import Path as Line
from shipbench.report.render import latex, markdown, typst
from shipbench.report.render.csv_text import frame_csv, table_csv
from shipbench.report.render.html import Span, html_page, spans
from shipbench.report.render.svg import inline_svg, without_values_of
from shipbench.report.wording.numbers import aligned, percent, short, signed
from shipbench.report.wording.text import listed


class Tags(html.parser.HTMLParser):
    """Collects tags, attributes and visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def test_hostile_text_stays_text_in_html(hostile_folder: Path) -> None:
    page = parsed((hostile_folder / "index.html").read_text(encoding="utf-8"))
    assert page.tags.count("script") == 2
    assert "<script>alert(1)</script>" in page.text
    assert not any(name.startswith("on") for name, _ in page.attributes)


def test_no_file_leaves_the_folder(hostile_folder: Path) -> None:
    assert [path.name for path in hostile_folder.parent.iterdir()] == ["inside"]
    names = [path.name for path in hostile_folder.rglob("*") if path.is_file()]
    assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in names)


def test_the_page_makes_no_requests(written: Path) -> None:
    page = parsed((written / "index.html").read_text(encoding="utf-8"))
    links = [value or "" for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not {"iframe", "object", "embed"} & set(page.tags)


def test_ids_on_the_page_are_unique_and_links_lead_somewhere(written: Path) -> None:
    page = parsed((written / "index.html").read_text(encoding="utf-8"))
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = [
        value[1:] for name, value in page.attributes if name in ("href", "xlink:href") and value and value[0] == "#"
    ]
    assert set(targets) <= set(ids)


def test_figures_on_the_page_use_its_colours(written: Path) -> None:
    page = (written / "index.html").read_text(encoding="utf-8")
    drawings = re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) > len(list((written / "figures").glob("*.svg")))
    assert all("var(--fig-ink)" in drawing for drawing in drawings)
    assert not any(f'"{colour}"' in drawing for drawing in drawings for colour in THEME)


def attributes(svg: str, name: str) -> list[str]:
    return [html.unescape(value) for value in re.findall(f' {name}="([^"]*)"', svg)]


def followed(path: str) -> list[tuple[float, float]]:
    """Return the places of a path: its start and those that its steps lead to."""
    start, _, steps = path.removeprefix("M").removesuffix("z").partition("l")
    numbers = [float(number) for number in re.findall(r"-?\d*\.?\d+", steps)]
    places = [(float(start.split(",")[0]), float(start.split(",")[1]))]
    for across, down in zip(numbers[::2], numbers[1::2], strict=True):
        places.append((places[-1][0] + across, places[-1][1] + down))
    return places


_PLACES = st.lists(st.tuples(*[st.floats(-20, 600)] * 2), min_size=1, max_size=12)


@given(points=_PLACES, closed=st.booleans())
def test_the_steps_of_a_path_lead_to_its_points(points: list[tuple[float, float]], closed: bool) -> None:
    (path,) = attributes(inline_svg(Drawing(600, 600, (Line(tuple(points), closed=closed),))), "d")
    places = followed(path)
    assert len(places) == len(points)
    for (x, y), (left, top) in zip(points, places, strict=True):
        assert (left, top) == (pytest.approx(x, abs=0.0501), pytest.approx(y, abs=0.0501))


def test_the_points_of_a_series_are_one_path_on_a_page() -> None:
    dots: list[Shape] = [Marker(x, 5, "o", 2.5, "red", key="a", tip=f"{x} %") for x in (1.0, 2.0, 3.5)]
    squares: list[Shape] = [Marker(x, 5, "s", 2, "red", key="a") for x in (1, 2)]
    alone: list[Shape] = [Marker(1, 1, "o", 2, "red", key="b"), Marker(1, 1, "o", 2, "red", "white", key="a")]
    valued: list[Shape] = [Marker(x, 5, "D", 2, "red", key="a", tip="text") for x in (1, 2)]
    svg = inline_svg(Drawing(9, 9, (*dots, *squares, *alone, *valued)))
    assert (svg.count("<path"), svg.count("<circle")) == (4, 2)
    assert attributes(svg, "d")[0] == "M1,5h0M2,5h0M3.5,5h0"
    assert attributes(svg, "d")[1].count("M") == 2
    assert attributes(svg, "data-key") == ["a", "a", "b", "a", "a", "a"]
    assert attributes(svg, "data-tip") == ["1.0\n2.0\n3.5", "text", "text"]


def filled(svg: str) -> list[list[str]]:
    """Return the texts of every shape as the script of the page does."""
    values = re.findall(r' data-tip="([^"]*)"(?: data-form="([^"]*)")?', svg)
    texts = []
    for numbers, form in values:
        rows = html.unescape(numbers).split("\n")
        gaps = [iter(row.split(" ")) for row in rows]
        words = html.unescape(form).split("#")
        texts.append([words[0] + "".join(next(gap) + word for word in words[1:]) for gap in gaps] if form else rows)
    return texts


@pytest.mark.parametrize(
    "tips",
    [
        ("A-1 & B: accuracy 61.2 % (7 % of images; ECE 3.0 %)", "A-1 & B: accuracy 9.0 % (0 % of images; ECE 3.0 %)"),
        ("A, epoch 1: 1.234", "A, epoch 2: 1e-05", "A, epoch 30: 0.5"),
        ("less by \N{MINUS SIGN}0.1", "less by 2.0"),
        ("cat", "cat", "cat"),
        ("class 3, A: 4 %", "class 3, A: 4 %"),
        ("cat as dog", "dog as dog"),
        ("C# 1", "C# 2"),
        ("a|b, A: 4 %", "c, A: 5 %"),
        ("a|b as c",),
        ("one",),
    ],
)
def test_texts_that_share_words_are_written_once(tips: tuple[str, ...]) -> None:
    places = tuple((float(i), 0.0) for i in range(len(tips)))
    line = inline_svg(Drawing(9, 9, (Line(places, "red", tips=tips),)))
    grid = inline_svg(Drawing(9, 9, (Grid(0, 0, 9, 9, (("#000000",) * len(tips),), (tips,)),)))
    assert filled(line) == filled(grid) == [list(tips)]
    assert line.count("accuracy") <= 1
    assert without_values_of(line, line) == re.sub(r' data-tip="[^"]*"( data-form="[^"]*")?', ' data-tip=""', line)


def test_a_line_break_in_a_name_parts_no_text() -> None:
    tips = ("cat\nor dog, A: 4 %", "cat\r\nor dog, A: 5 %", "bird, A: 6 %")
    line = inline_svg(Drawing(9, 9, (Line(((0, 0), (1, 0), (2, 0)), "red", tips=tips),)))
    assert filled(line) == [["cat or dog, A: 4 %", "cat or dog, A: 5 %", "bird, A: 6 %"]]


def test_svg_files_are_well_formed(written: Path, hostile_folder: Path) -> None:
    files = [*(written / "figures").glob("*.svg"), *(hostile_folder / "figures").glob("*.svg")]
    assert files
    for path in files:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_csv_reads_back_what_was_written(hostile_report: Report) -> None:
    results = hostile_report.results
    back = pd.read_csv(io.StringIO(frame_csv(results)))
    assert list(back["run_id"]) == list(results["run_id"])
    assert back["accuracy"].to_numpy() == pytest.approx(results["accuracy"].to_numpy(), nan_ok=True)
    for table in hostile_report.tables():
        rows = list(csv.reader(io.StringIO(table_csv(table))))
        assert {len(row) for row in rows} == {len(rows[0])}


def test_csv_texts_are_no_formulas() -> None:
    text = frame_csv(pd.DataFrame({"text": ["=1+1", "@x", "fine"], "number": [-1.5, 2.0, None]}))
    assert text.splitlines() == ["text,number", "'=1+1,-1.5", "'@x,2.0", "fine,"]


def test_csv_has_deviations_and_seeds_beside_means(demo_report: Report) -> None:
    table = next(table for table in demo_report.tables() if table.name == "main-demo")
    rows = list(csv.DictReader(io.StringIO(table_csv(table))))
    ship = next(row for row in rows if row["method"] == "SHIP")
    assert ship["digits seeds"] == "2"
    assert float(ship["digits deviation"]) > 0
    linear = next(row for row in rows if row["method"] == "Linear probe")
    assert (linear["digits seeds"], linear["digits deviation"]) == ("1", "")


def markdown_rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("|"):
            yield re.split(r"(?<!\\)\|", line)[1:-1]


def test_markdown_tables_keep_their_shape(hostile_report: Report) -> None:
    for table in hostile_report.tables():
        text = markdown.markdown_table(table)
        assert {len(cells) for cells in markdown_rows(text)} == {len(without_empty_columns(table).columns)}
        assert "<script" not in text


def test_markdown_marks_best_and_second(demo_report: Report) -> None:
    text = markdown.markdown_table(next(demo_report.tables()))
    assert re.search(r"\*\*\d\d\.\d\*\* ±", text)
    assert re.search(r"<ins>\d\d\.\d</ins> ±", text)


def test_decimal_points_are_aligned() -> None:
    texts = ["85.8", "0.038", "1,234", "<0.001", "", MISSING, "\N{MINUS SIGN}7"]
    columns = (Column("method", "Method", align="left"), Column("x", "x"))
    rows = tuple(Row((Cell("1.5"), Cell(text, sign="†"))) for text in texts)
    table = Table("t", "T", Caption(""), columns, rows)
    assert [pad for _, pad in decimal_padding(table)] == ["00", "", ".000", "", "", "", ".000"]
    assert not any(pad for pad, _ in decimal_padding(table))
    assert r"85.8\phantom{00}\rlap{\textdagger{}}" in latex.latex_table(table)
    assert "| 85.8† |" in markdown.markdown_table(table)


def marked_table() -> Table:
    """A table with groups over some columns, a best and a second-best number, a note and a warning."""
    groups = {"a": "One", "b": "One", "c": "", "d": "Two", "e": "Two", "f": "Two"}
    columns = (Column("m", "Method", align="left"), *(Column(name, name, group) for name, group in groups.items()))
    cells = (Cell("9.0", mark="best"), Cell("8.0", mark="second"), *(Cell("7.0") for _ in range(4)))
    return Table("t", "T", Caption("C."), columns, (Row((Cell("x"), *cells)),), ("a note",), ("a warning",))


def test_titles_of_groups_stand_over_their_columns_in_every_format() -> None:
    table = marked_table()
    tex, typ = latex.latex_table(table), typst.typst_table(table)
    empty = r"\multicolumn{1}{c}{}"
    assert rf"{empty} & \multicolumn{{2}}{{c}}{{One}} & {empty} & \multicolumn{{3}}{{c}}{{Two}} \\" in tex
    assert r"\cmidrule(lr){2-3}\cmidrule(lr){5-7}" in tex
    assert r"\begin{tabular}{lrrrrrr}" in tex
    assert re.findall(r'colspan: (\d), align: center, "(\w*)"', typ) == [
        ("1", ""),
        ("2", "One"),
        ("1", ""),
        ("3", "Two"),
    ]
    assert re.findall(r"start: (\d), end: (\d)", typ) == [("1", "3"), ("4", "7")]
    assert spans(table.columns) == [Span("", 1), Span("One", 2), Span("", 1), Span("Two", 3)]
    assert (
        markdown.markdown_table(table).splitlines()[4] == "| Method | One: a | One: b | c | Two: d | Two: e | Two: f |"
    )


def test_best_is_bold_and_second_best_underlined_in_latex_and_typst() -> None:
    tex, typ = latex.latex_table(marked_table()), typst.typst_table(marked_table())
    assert r"x & \textbf{9.0} & \underline{8.0} & 7.0" in tex
    assert '"x", strong("9.0"), underline("8.0"), "7.0"' in typ


def test_notes_and_warnings_are_printed_in_every_format() -> None:
    table = marked_table()
    report = Report("R", "", (), ("a caution In: T.",), (Section("all", "All", (table,)),), pd.DataFrame())
    page, text = html_page(report), markdown.markdown_report(report, None)
    for printed in (latex.latex_table(table), typst.typst_table(table), markdown.markdown_table(table), page, text):
        assert all(sentence in printed for sentence in ("a note", "a warning"))
    assert "<li>a caution In: T.</li>" in page
    assert text.startswith("# R\n\n> **Read this first**\n>\n> - a caution In: T.\n")


def test_numbers_are_rounded_and_scaled_as_they_are_named() -> None:
    assert [signed(value) for value in (0.26, -1.26, -0.04, None)] == ["+0.3", "\N{MINUS SIGN}1.3", "0.0", ""]
    assert [percent(value) for value in (99.96, 0.04, float("nan"))] == ["100.0", "0.0", ""]
    assert [short(value, 1e6) for value in (85_798_656, 38_000, 1.5e9, 0)] == ["85.8", "0.038", "1,500", "0"]
    assert aligned([85_798_656, 294_912, float("nan")], 1e6) == ["85.80", "0.29", ""]
    assert (listed(list("abcd")), listed(list("abcdef"))) == ("a, b, c and d", "a, b, c and 3 more")


@given(st.text())
def test_markdown_escape_leaves_no_live_character(text: str) -> None:
    escaped = markdown.escape(text)
    assert "\n" not in escaped
    assert "<" not in escaped
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`*_~$\[\]]", escaped)
    assert not re.match(r"[#=]|[+-]([\s-]|$)|\d+[.)](\s|$)", escaped)
