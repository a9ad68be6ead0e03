"""Writing a report: tables, figures, a Markdown and an HTML page, and all results in long form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from shipbench.errors import InputError
from shipbench.report.document import Report, Table, without_empty_columns
from shipbench.report.drawing.paper import PLAIN, PaperStyle
from shipbench.report.render.csv_text import frame_csv, table_csv
from shipbench.report.render.html import html_page
from shipbench.report.render.images import IMAGE_FORMATS, images
from shipbench.report.render.latex import latex_table, preview_document
from shipbench.report.render.markdown import markdown_report, markdown_table
from shipbench.report.render.typst import typst_document, typst_table
from shipbench.settings import comma_list, one_of

FORMATS = ("md", "tex", "typ", "csv", "html", *IMAGE_FORMATS)
_MANIFEST = "manifest.json"
_TABLES = {"md": markdown_table, "tex": latex_table, "typ": typst_table, "csv": table_csv}


def parse_formats(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of formats; raises ``InputError`` for an unknown format or an empty list."""
    names = [one_of(name.lower().removeprefix("."), FORMATS, "--format", "format") for name in comma_list(text)]
    if not names:
        raise InputError(f"--format is empty; name one or more of {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in names)


def write_report(report: Report, output: Path, formats: Sequence[str], paper: PaperStyle = PLAIN) -> list[Path]:
    """Write ``report`` into the folder ``output`` and return the files, the page first; ``paper`` styles the figures.

    Files that the manifest of an earlier report lists and this report lacks are deleted; other files in the folder
    stay. Raises ``InputError`` if ``output`` is a file.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; name a folder for the report")
    contents = report_files(report, formats, paper)
    stale = _stale(output, contents)
    for name, content in contents.items():
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for path in stale:
        path.unlink(missing_ok=True)
    manifest = {"files": sorted(contents)}
    (output / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return [output / name for name in contents]


def report_files(report: Report, formats: Sequence[str], paper: PaperStyle = PLAIN) -> dict[str, bytes]:
    """Return the content of every file by its path in the report's folder, the page first."""
    suffixes = [name for name in IMAGE_FORMATS if name in formats]
    files = {name: text.encode("utf-8") for name, text in _pages(report, formats).items()}
    for table in report.tables():
        files |= _table_files(table, formats)
    for figure in report.figures() if suffixes else ():
        files |= {f"figures/{figure.name}.{suffix}": image for suffix, image in images(figure, suffixes, paper).items()}
    return files


def _pages(report: Report, formats: Sequence[str]) -> dict[str, str]:
    pages = {}
    if "html" in formats:
        pages["index.html"] = html_page(report)
    if "md" in formats:
        pages["report.md"] = markdown_report(report, _first(formats, "svg", "png"))
    if "tex" in formats:
        pages["preview.tex"] = preview_document(report, _first(formats, "pgf", "pdf", "png"))
    if "typ" in formats:
        pages["preview.typ"] = typst_document(report, _first(formats, "svg", "png"))
    if "tex" in formats or "typ" in formats:
        pages["references.bib"] = "\n\n".join(report.references) + "\n"
    if "csv" in formats:
        pages["results.csv"] = frame_csv(report.results)
    return pages


def _first(formats: Sequence[str], *candidates: str) -> str | None:
    return next((name for name in candidates if name in formats), None)


def _table_files(table: Table, formats: Sequence[str]) -> dict[str, bytes]:
    printed = without_empty_columns(table)
    return {
        f"tables/{table.name}.{suffix}": render(table if suffix == "csv" else printed).encode("utf-8")
        for suffix, render in _TABLES.items()
        if suffix in formats
    }


def _stale(output: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Return the files inside ``output`` that an earlier manifest lists and that are not in ``contents``."""
    try:
        names = json.loads((output / _MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    root = output.resolve()
    paths = [output / str(name) for name in names if str(name) not in contents]
    return [path for path in paths if path.resolve().is_relative_to(root) and path.is_file()]
