"""``shipbench report``: from a results folder to tables, figures and one page."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from shipbench.cli.options import Results
from shipbench.runtime.console import say

_TITLE = "Benchmark report"


def report(
    results: Results = Path("results"),
    output: Annotated[Path, typer.Option(help="The folder to write the report into.")] = Path("reports/latest"),
    select: Annotated[
        str,
        typer.Option(
            help="Which accuracy counts: final, validation, oracle (the best test epoch), or an installed rule."
        ),
    ] = "final",
    formats: Annotated[
        str, typer.Option("--format", help="What to write: any of md, tex, csv, html, png, pdf, svg.")
    ] = "md,tex,csv,html,png,svg",
    baseline: Annotated[
        str | None, typer.Option(help="The method that differences per task refer to; VPT-deep if not given.")
    ] = None,
    published: Annotated[
        str, typer.Option(help="Published rows under ours: same (of our methods), all or none.")
    ] = "same",
    title: Annotated[str, typer.Option(help="The title of the report.")] = _TITLE,
) -> None:
    """Write tables, figures and one page from the records of a results folder, and from nothing else."""
    from shipbench.report import ReportOptions, build_report, parse_formats, write_report
    from shipbench.report.analysis.published import published_choice
    from shipbench.results.loading import load_history, load_predictions, load_results
    from shipbench.results.tunings import load_tunings

    chosen = parse_formats(formats)
    command = _command(results, output, select, formats, baseline, published, title)
    options = ReportOptions(select, baseline, published_choice(published), title, command)
    records = load_results(results)
    history = load_history(results, records["run_id"]) if len(records) else None
    made = build_report(
        records, history, options, predictions=partial(load_predictions, results), tunings=load_tunings(results)
    )
    say(f"{len(records)} records, {sum(1 for _ in made.figures())} figures")
    files = write_report(made, output, chosen)
    typer.echo(files[0] if "html" in chosen else output)


def _command(
    results: Path, output: Path, select: str, formats: str, baseline: str | None, published: str, title: str
) -> str:
    """Return the command that makes this report again; of folders elsewhere on this machine only the name."""
    folders = [path.name if path.is_absolute() else path.as_posix() for path in (results, output)]
    words = ["shipbench", "report", "--results", folders[0], "--output", folders[1], "--select", select]
    words += ["--format", formats, *(["--baseline", baseline] if baseline else []), "--published", published]
    return shlex.join([*words, *(["--title", title] if title != _TITLE else [])])
