"""How a report lays things out: cards, widths of figures, cells of two lines, dashes, fonts, cells of maps."""

from __future__ import annotations

import base64
import io
import re

import pandas as pd
import pytest
from PIL import Image

from shipbench.report.document import Caption, Cell, Column, Figure, Report, Row, RowKind, Section, Table
from shipbench.report.drawing.chart import Axis, Chart, Panel
from shipbench.report.drawing.shapes import Drawing, Grid, Text
from shipbench.report.drawing.shapes import Path as Line
from shipbench.report.render import markdown
from shipbench.report.render.html import _row_key, cards
from shipbench.report.render.latex import preview_document
from shipbench.report.render.pgf import pgf_picture
from shipbench.report.render.plot import plots
from shipbench.report.render.svg import inline_svg
from shipbench.report.render.typst import typst_document


def figure(name: str, *, wide: bool = False) -> Figure:
    return Figure(name, name, Caption(""), lambda: Chart((Panel(Axis(0, 1), Axis(0, 1), ()),), 50), "", wide)


def table(columns: int, *, long: bool = False) -> Table:
    return Table("t", "T", Caption(""), tuple(Column(f"{i}", f"{i}") for i in range(columns)), (), long=long)


def test_two_narrow_cards_stand_side_by_side_and_a_single_one_alone() -> None:
    items = (figure("a"), figure("b", wide=True), table(6), figure("c"), table(7), table(2, long=True), table(1))
    placed = [(card.wide, card.alone) for card in cards(items)]
    assert placed == [(True, True), (True, False), *[(False, False)] * 2, *[(True, False)] * 2, (True, True)]


def test_a_wide_figure_takes_the_width_of_a_paper() -> None:
    items = (figure("broad", wide=True), figure("small"))
    report = Report("R", "", (), (), (Section("all", "All", items),), pd.DataFrame())
    tex, typ = preview_document(report, "png"), typst_document(report, "png")
    assert re.findall(r"width=([\d.]*)\\linewidth,.*\{figures/(\w+)\}", tex) == [("", "broad"), ("0.6", "small")]
    assert re.findall(r'"figures/(\w+)\.png", (\d+)%', typ) == [("broad", "100"), ("small", "60")]


@pytest.mark.parametrize(("kind", "key"), [("ours", "SHIP"), ("published", ""), ("difference", ""), ("imported", "")])
def test_a_method_that_is_switched_off_takes_its_own_rows_alone(kind: RowKind, key: str) -> None:
    assert _row_key(Row((Cell("SHIP", value="SHIP"),), kind), {"SHIP": "SHIP"}) == key
    assert _row_key(Row((Cell("LoRA", value="LoRA"),), kind), {"SHIP": "SHIP"}) == ""


def test_what_stands_below_a_name_is_in_parentheses_in_markdown() -> None:
    columns = (Column("m", "Method", align="left"), Column("a", "A"))
    rows = (Row((Cell("SHIP", below="10 prompts"), Cell("70.0", below="±0.5"))),)
    text = markdown.markdown_table(Table("t", "T", Caption(""), columns, rows))
    assert "| SHIP (10 prompts) | 70.0 ±0.5 |" in text


def test_dashes_are_those_of_the_drawing_in_latex() -> None:
    line = Line(((0, 0), (9, 9)), "#000000", dashes=(6, 1.5, 2, 1))
    assert b"dash pattern=on 6bp off 1.5bp on 2bp off 1bp" in pgf_picture(Drawing(9, 9, (line,)))


@pytest.mark.parametrize(("serif", "font"), [(False, b"DejaVuSans"), (True, b"STIXGeneral")])
def test_a_pdf_has_the_font_of_its_style(serif: bool, font: bytes) -> None:
    drawing = Drawing(90, 30, (Text(5, 20, "text", 9, "#000000"),))
    assert font in plots(drawing, ["pdf"], serif=serif)["pdf"]


def test_the_cells_of_a_map_are_the_pixels_of_its_image() -> None:
    rows = (("#ff0000", "#00ff00", "#0000ff"), ("#010203", "#ffffff", "#000000"))
    (encoded,) = re.findall(r"base64,([^\"]+)", inline_svg(Drawing(9, 9, (Grid(0, 0, 9, 6, rows),))))
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        assert image.size == (24, 16)
        shown = [[image.getpixel((8 * x + 7, 8 * y)) for x in range(3)] for y in range(2)]
    assert shown == [[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(1, 2, 3), (255, 255, 255), (0, 0, 0)]]
