"""``shipbench report``: tables, figures and a page from results folders."""

from __future__ import annotations

import gc
import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipbench.cli import next_steps
from shipbench.cli.documents import print_document
from shipbench.cli.options import Json, options_command
from shipbench.counts import counted
from shipbench.errors import InputError, check_all
from shipbench.runtime.console import say
from shipbench.runtime.files import check_output
from shipbench.runtime.interrupts import stopping
from shipbench.settings import comma_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from shipbench.report.document import Report
    from shipbench.report.drawing.paper import PaperStyle

_TITLE = "Benchmark report"
_FORMATS = "md,tex,csv,html,svg"


@dataclass(frozen=True)
class ReportChoices:
    """The options of ``shipbench report``."""

    results: Annotated[
        str, typer.Option(envvar="SHIPBENCH_RESULTS", help="Folders of the records, comma-separated.")
    ] = "results"
    output: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("reports/latest")
    select: Annotated[
        str,
        typer.Option(
            help="The accuracy that counts: final, validation, oracle (best test epoch), or a rule of another package."
        ),
    ] = "final"
    formats: Annotated[
        str,
        typer.Option(
            "--format", help="Formats to write: any of md, tex, typ, csv, html, png, pdf, svg, pgf, comma-separated."
        ),
    ] = _FORMATS
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Method that the others are compared with; default: VPT-deep, or the first if that was not run."
        ),
    ] = None
    published: Annotated[
        str, typer.Option(help="Published rows to show: default (methods that were run), all or none.")
    ] = "default"
    imported: Annotated[
        str,
        typer.Option(
            help="Results of other harnesses: beside (rows of their own, in no rank or test), all (like methods that "
            "were run) or none."
        ),
    ] = "beside"
    style: Annotated[
        str, typer.Option(help="Width and font of the figure files: plain, or those of a paper, cvpr or neurips.")
    ] = "plain"
    title: Annotated[str, typer.Option(help="Title of the report.")] = _TITLE
    as_json: Json = False

    def folders(self) -> list[Path]:
        """Return the results folders; raise ``InputError`` if none is named."""
        if Path(self.results).is_dir():
            return [Path(self.results)]
        folders = [Path(name) for name in comma_list(self.results)]
        if not folders:
            raise InputError("--results is empty; name a results folder, or several with commas between them")
        return folders

    def command(self) -> str:
        """Return the command that reproduces the report; absolute paths are reduced to the name of the folder."""
        names = [path.name if path.is_absolute() else path.as_posix() for path in (*self.folders(), self.output)]
        words = ["shipbench", "report", "--results", ",".join(names[:-1]), "--output", names[-1]]
        words += ["--select", self.select]
        words += ["--format", self.formats, *(["--baseline", self.baseline] if self.baseline else [])]
        words += ["--published", self.published]
        words += ["--style", self.style] if self.style != "plain" else []
        words += ["--title", self.title] if self.title != _TITLE else []
        words += ["--imported", self.imported] if self.imported != "beside" else []
        return shlex.join(words)


@options_command(ReportChoices)
def report(options: ReportChoices) -> None:
    """Write tables, figures and a page from the records of results folders."""
    make_report(options)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep the garbage collector off: a report leaves hardly any cycles, and looking for them takes long."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_without_collector()
def make_report(choices: ReportChoices) -> None:
    """Write a report and print where it lies, as ``shipbench report`` does."""
    from shipbench.report import write_report

    suffixes, paper = check_choices(choices)
    built, records = _built(choices)
    say(f"{counted(records, 'record')}, {counted(sum(1 for _ in built.figures()), 'figure')}")
    with stopping(f"files in {choices.output} may be of an earlier report; the same command writes all of them"):
        files = write_report(built, choices.output, suffixes, paper)
    page = files[0] if "html" in suffixes else choices.output
    if choices.as_json:
        _print_document(built, choices.output, files, records)
    else:
        typer.echo(page)
    next_steps.look_at("report", page)


def check_choices(choices: ReportChoices) -> tuple[tuple[str, ...], PaperStyle]:
    """Return the formats and the style of a report; raise one ``InputError`` for all values that do not fit.

    Only the baseline is left to the records, which have to hold runs of it.
    """
    from shipbench.report import parse_formats
    from shipbench.report.analysis.imported import imported_choice
    from shipbench.report.analysis.published import published_choice
    from shipbench.report.drawing.paper import get_paper_style
    from shipbench.selection import get_selection

    checks: list[Callable[[], Any]] = [
        partial(check_output, choices.output, "--output"),
        partial(get_selection, choices.select),
        partial(published_choice, choices.published),
        partial(imported_choice, choices.imported),
        partial(parse_formats, choices.formats),
        partial(get_paper_style, choices.style),
    ]
    *_, formats, style = check_all(checks)
    return formats, style


def _built(choices: ReportChoices) -> tuple[Report, int]:
    """Return the report of the results folders, and the number of their records."""
    from shipbench.report import ReportOptions, build_report
    from shipbench.report.analysis.imported import imported_choice
    from shipbench.report.analysis.published import published_choice
    from shipbench.results.loading import load_features, load_history, load_predictions, load_results
    from shipbench.results.tunings import load_tunings

    folders, published, imported = choices.folders(), published_choice(choices.published), choices.imported
    options = ReportOptions(
        choices.select, choices.baseline, published, choices.title, choices.command(), imported_choice(imported)
    )
    records = load_results(folders)
    _say_shared(folders, len(records))
    built = build_report(
        records,
        load_history(folders, records["run_id"]) if len(records) else None,
        options,
        predictions=partial(load_predictions, folders),
        features=partial(load_features, folders),
        tunings=load_tunings(folders),
    )
    return built, len(records)


def _say_shared(folders: Sequence[Path], records: int) -> None:
    from shipbench.results.lookup import run_ids

    if shared := sum(len(run_ids(folder)) for folder in dict.fromkeys(folders)) - records:
        say(f"{counted(shared, 'record')} left out: of a run in several folders, that of the first in which it is done")


def _print_document(report: Report, output: Path, files: Sequence[Path], records: int) -> None:
    from shipbench.report.render.csv_text import table_rows

    print_document(
        "report/1",
        output=output,
        files=files,
        records=records,
        warnings=report.warnings,
        results=[
            {"suite": overview.title, "rule": result.select, "mean": result.mean, "sentence": result.sentence}
            for overview in report.overviews
            for result in overview.results
        ],
        tables=[{"name": table.name, "title": table.title, "rows": table_rows(table)} for table in report.tables()],
    )
