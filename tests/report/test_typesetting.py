"""LaTeX and Typst: escapes, balanced tables, and documents that compile."""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from itertools import cycle
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipbench.report import ReportOptions, build_report, write_report
from shipbench.report.document import (
    MISSING,
    Caption,
    Cell,
    Column,
    Report,
    Row,
    Section,
    Table,
)
from shipbench.report.drawing.paper import PAPER_STYLES
from shipbench.report.render import latex, typst
from shipbench.report.render.images import images
from tests.report.builders import VTAB_TASKS, grid, make_results

PDFLATEX = shutil.which("pdflatex")


@given(st.text())
def test_latex_escape_leaves_no_live_character(text: str) -> None:
    escaped = latex.escape(text)
    assert escaped.isascii() or all(0xA1 <= ord(c) < 0x100 for c in escaped if not c.isascii())
    bare = re.sub(r"\\textbackslash\{\}|\\text[a-z]+\{\}|\\dots\{\}|\\[&%$#_{}]|\$\\?[a-z-]+\$", "", escaped)
    assert not re.search(r"[\\&%$#_~^]", bare)
    assert bare.count("{") == bare.count("}")


def test_latex_joins_no_hyphens_of_an_option() -> None:
    assert latex.escape("repeat all seeds with --force") == "repeat all seeds with -{}-force"
    assert latex.escape("a \N{EN DASH} b-c") == "a -- b-c"


def test_every_sign_of_the_sources_has_a_form_in_latex_and_typst() -> None:
    package = Path(latex.__file__).parents[1]
    sources = [path.read_text(encoding="utf-8") for path in package.rglob("*.py") if path.parent.name != "render"]
    names = {name for text in sources for name in re.findall(r"\\N\{([^{}]+)\}", text)}
    signs = {letter for text in sources for letter in text if not letter.isascii()}
    signs |= {unicodedata.lookup(name) for name in names}
    assert {*"±§¶▲▼✓", "\N{DAGGER}", "\N{DOUBLE DAGGER}", "\N{MINUS SIGN}", "…", MISSING} <= signs
    assert {sign for sign in signs if "U+" in latex.escape(sign)} == set()
    assert {sign for sign in signs if typst.quoted(sign) != f'"{sign}"'} == set()


def test_latex_tables_are_balanced(hostile_report: Report) -> None:
    for table in hostile_report.tables():
        text = latex.latex_table(table)
        assert [text.count(rule) for rule in (r"\toprule", r"\bottomrule")] == [1, 1]
        assert re.findall(r"\\begin\{(\w+\*?)\}", text) == list(reversed(re.findall(r"\\end\{(\w+\*?)\}", text)))
        body = text.split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
        lines = [line for line in body.splitlines() if r"\\" in line]
        separators = {len(re.findall(r"(?<!\\)&", line)) for line in lines}
        assert separators <= {len(table.columns) - 1}


def test_a_table_higher_than_a_page_continues_in_another_float() -> None:
    kinds = ("ours", "published", "difference", "difference")
    rows = tuple(Row((Cell(f"row {i}"), Cell("1.0", "±0.5"))) for i in range(20))
    rows += tuple(Row((Cell(f"{kinds[i % 4]} {i}"), Cell("2.0")), kinds[i % 4]) for i in range(60))  # type: ignore[arg-type]
    columns = (Column("name", "Name", align="left"), Column("x", "X"))
    text = latex.latex_table(Table("t", "T", Caption("Caption."), columns, rows, ("a note",), ("a warning",)))
    floats = text.split(r"\begin{table}")[1:]
    assert len(floats) == 4
    assert [part.count(r"\caption{Caption.}\label{tab:t}") for part in floats] == [1, 0, 0, 0]
    assert [part.count(r"\addtocounter{table}{-1}") for part in floats] == [0, 1, 1, 1]
    assert ["a note" in part and "a warning" in part for part in floats] == [False, False, False, True]
    assert [row.cells[0].text for row in rows] == re.findall(r"(?:row|ours|published|difference) \d+", text)
    for part in floats:
        assert not part.split(r"\midrule")[1].lstrip().startswith(r"\textit{difference")
        assert len(re.findall(r"\\\\", part.split(r"\midrule")[1])) <= 32
    notes = tuple(f"note {i}" for i in range(40))
    assert latex.latex_table(Table("t", "T", Caption("Caption."), columns, (), notes)).count(r"\begin{table}") == 1


@pytest.mark.skipif(PDFLATEX is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("which", ["written", "hostile_folder"])
def test_latex_compiles(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    shutil.copytree(request.getfixturevalue(which), folder)
    compiled(folder)


@pytest.mark.skipif(PDFLATEX is None, reason="pdflatex is not installed")
def test_no_page_of_the_preview_holds_its_title_alone(tmp_path: Path) -> None:
    rows = tuple(Row((Cell(f"row {i}"), Cell("1.0"))) for i in range(32))
    table = Table("t", "T", Caption("Caption. " * 40), (Column("name", "Name", align="left"), Column("x", "X")), rows)
    sections = (Section("all", "All", (table,)),)
    report = Report("A 100 % title", "", (), (), sections, pd.DataFrame())
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.tex").write_text(latex.latex_table(table), encoding="utf-8")
    (tmp_path / "preview.tex").write_text(latex.preview_document(report, None), encoding="utf-8")
    assert "Output written on preview.pdf (1 page" in compiled(tmp_path)


@pytest.mark.skipif(PDFLATEX is None, reason="pdflatex is not installed")
def test_every_published_row_fits_on_pages(tmp_path: Path) -> None:
    records = grid(("ship", "vpt-deep", "vpt-shallow", "linear", "full"), VTAB_TASKS, (0, 1))
    report = build_report(make_results(records), options=ReportOptions(published="all"))
    write_report(report, tmp_path, formats=("tex",))
    assert "Float too large" not in compiled(tmp_path)


@pytest.mark.skipif(PDFLATEX is None, reason="pdflatex is not installed")
def test_a_table_compiles_with_the_packages_it_names_and_no_font_encoding(tmp_path: Path) -> None:
    cell = Cell('"quoted" § † ‡ ±1 – ▲ < > | \\ _ ^ ~ [x] *')  # noqa: RUF001
    table = Table("t", "T", Caption('A "caption".'), (Column("x", "X"),), (Row((cell,)),), ('a "note"',))
    packages = latex.PACKAGES.removeprefix("% needs ").strip()
    text = f"\\documentclass{{article}}\n{packages}\n\\begin{{document}}\n{latex.latex_table(table)}\\end{{document}}\n"
    (tmp_path / "preview.tex").write_text(text, encoding="utf-8")
    compiled(tmp_path)


@pytest.mark.skipif(PDFLATEX is None, reason="pdflatex is not installed")
def test_every_figure_compiles_as_pgf(demo_report: Report, tmp_path: Path) -> None:
    """Styles take turns: they change sizes only."""
    inputs = []
    for figure, paper in zip(demo_report.figures(), cycle(PAPER_STYLES), strict=False):
        inputs.append(f"\\input{{{figure.name}.pgf}}")
        (tmp_path / f"{figure.name}.pgf").write_bytes(images(figure, ["pgf"], paper)["pgf"])
    preamble, _ = latex.preview_document(demo_report, None).split("\\markright")
    text = "\n\n".join([preamble, *inputs, "\\end{document}\n"])
    (tmp_path / "preview.tex").write_text(text, encoding="utf-8")
    assert "Overfull" not in compiled(tmp_path)


def test_typst_compiles(demo_report: Report, hostile_report: Report, tmp_path: Path) -> None:
    compiler = pytest.importorskip("typst", reason="the package typst is not installed")
    for name, report in (("demo", demo_report), ("hostile", hostile_report)):
        write_report(report, tmp_path / name, ("typ", "svg"))
        assert compiler.compile(tmp_path / name / "preview.typ").startswith(b"%PDF")


def test_typst_tables_hold_texts_in_strings_only(hostile_report: Report) -> None:
    for table in hostile_report.tables():
        lines = typst.typst_table(table).splitlines()
        bare = [re.sub(r'"(?:[^"\\]|\\.)*"', "", line) for line in lines]
        assert not re.search(r"[\\$@`_]|script", "".join(bare).replace(f"<tab:{table.name}>", ""))
        assert sum(line.count("(") - line.count(")") for line in bare) == 0


def compiled(folder: Path) -> str:
    """Compile the preview of a report and return the output of LaTeX."""
    command = [str(PDFLATEX), "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "preview.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (folder / "preview.pdf").stat().st_size > 10_000
    assert "Missing character" not in done.stdout
    return done.stdout
