"""``shipbench data``: verify, import, fetch and inspect a task's images."""

from __future__ import annotations

import csv
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from shipbench.cli import completion, next_steps, options
from shipbench.cli.config_file import is_given
from shipbench.cli.layout import make_table, printable
from shipbench.counts import counted
from shipbench.errors import InputError, system_reason
from shipbench.runtime.console import out_console, say
from shipbench.runtime.files import atomic_path, check_output
from shipbench.runtime.interrupts import stopping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from shipbench.data.inspection.summary import TaskSummary
    from shipbench.data.types import Finding, TaskReport
    from shipbench.tasks import Task

DEFAULT_FOLDER = Path("data/vtab-1k")

_VTAB_SPLITS = ("train800", "val200", "train800val200", "test")
_SHORT_NAMES = {"train800val200": "1000"}
_MOST_CLASSES = 200
_NOTHING = "nothing was imported"

app = typer.Typer(help="Verify and inspect images; import VTAB-1k and FGVC; fetch VTAB-1k.", no_args_is_help=True)

Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Number of threads (default: one per usable core).")]
Target = Annotated[Path, typer.Option("--to", help="Folder to put the task folders into.")]


@app.command("verify")
def verify_command(
    context: typer.Context,
    place: Annotated[
        str,
        typer.Argument(
            metavar="DIR|SOURCE|FILE.toml",
            envvar="SHIPBENCH_DATA",
            help="The folder of VTAB-1k or FGVC, a SOURCE such as folder:PATH, or a task file.",
        ),
    ],
    data: options.Data = None,
    list_file: Annotated[
        Path | None,
        typer.Option(
            "--list", metavar="FILE.csv", help="Write every image that is broken, repeated or shared by two splits."
        ),
    ] = None,
    jobs: Jobs = None,
) -> None:
    """Check every image of VTAB-1k, FGVC, a source or a task file: labels, counts, formats, images in two splits."""
    from shipbench.data.fgvc.source import sets_in
    from shipbench.data.inspection.verify import verify

    if list_file is not None:
        check_output(list_file, "--list", folder=False)
    tasks = _own_tasks(place)
    if tasks:
        _print_reports([verify(data, tasks=tasks, jobs=jobs)], list_file)
        next_steps.after_verify_own(place, data)
        return
    if is_given(context, "data"):
        raise InputError(
            f"--data is for sources and task files; to verify a folder: shipbench data verify {quote(str(data))}"
        )
    fine_grained = sets_in(Path(place))
    suites = [verify(Path(place), tasks=fine_grained, jobs=jobs)] if fine_grained else []
    vtab = not fine_grained or _holds_vtab(Path(place))
    if vtab:
        suites.append(verify(Path(place), jobs=jobs))
    _print_reports(suites, list_file)
    if fine_grained:
        names = [task.name for task in fine_grained]
        next_steps.after_import_fgvc(["all", *names] if vtab else names, Path(place))
    else:
        next_steps.after_verify(Path(place))


def _holds_vtab(folder: Path) -> bool:
    from shipbench.data.vtab.folder import IncompleteCopyError, find_base

    try:
        find_base(folder)
    except IncompleteCopyError:
        return False
    return True


def _own_tasks(place: str) -> Sequence[Task]:
    """Return the tasks of a SOURCE or a task file; none if ``place`` is neither."""
    from shipbench.tasks import load_task_file, parse_tasks
    from shipbench.tasks.own import is_source

    if is_source(place):
        return parse_tasks(place)
    return load_task_file(place).tasks if place.lower().endswith(".toml") else ()


@app.command("import")
def import_command(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE",
            help="Folders or .zip, .tar, .tar.gz, .tar.xz or .tar.bz2 archives: all parts of one copy.",
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            help=f"Folder to put the task folders into; default: {DEFAULT_FOLDER}, or data/fgvc for FGVC.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Unpack or copy VTAB-1k or FGVC into place under canonical names; a failed import leaves nothing behind.

    FGVC is recognised by its files:
    CUB_200_2011.tgz, nabirds.tar.gz, car_ims.tgz with cars_annos.mat,
    102flowers.tgz with imagelabels.mat and setid.mat,
    images.tar with lists.tar, and archives of VPT's JSON files.
    """
    from shipbench.data.acquisition.fgvc import DEFAULT_FOLDER as FGVC_FOLDER
    from shipbench.data.acquisition.fgvc import holds_fgvc

    if any(holds_fgvc(source) for source in sources):
        _import_fgvc(sources, to or FGVC_FOLDER)
    else:
        _import_vtab(sources, to or DEFAULT_FOLDER)


def _import_vtab(sources: Sequence[Path], to: Path) -> None:
    from shipbench.data.acquisition.importing import import_archives
    from shipbench.data.vtab.folder import missing_tasks

    with stopping(_NOTHING):
        names = import_archives(sources, to)
    typer.echo(f"imported {counted(len(names), 'task')} into {to}: {', '.join(names)}")
    if missing := missing_tasks(to):
        say(f"note: {to} lacks {len(missing)} of the 19 tasks: {', '.join(missing)}")
    next_steps.after_fetch(to)


def _import_fgvc(sources: Sequence[Path], to: Path) -> None:
    from shipbench.data.acquisition.fgvc import import_fgvc

    with stopping(_NOTHING):
        names = import_fgvc(sources, to)
    typer.echo(f"imported {counted(len(names), 'data set')} into {to}: {', '.join(names)}")
    next_steps.after_import_fgvc(names, to)


@app.command("fetch")
def fetch_command(
    to: Target = DEFAULT_FOLDER,
    repo: Annotated[
        str | None, typer.Option("--repo", help="Dataset repository to download (default: XiN0919/VTAB-1k).")
    ] = None,
    revision: Annotated[str, typer.Option("--revision", help="Branch, tag or commit.")] = "main",
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", envvar="HF_ENDPOINT", help="Address of the hub (default: huggingface.co)."),
    ] = None,
) -> None:
    """Download VTAB-1k (about 5 GB) from the Hugging Face hub and import it; resumes an interrupted download."""
    from shipbench.data.acquisition.fetch import REPO, fetch

    with stopping("what was downloaded is kept, and the same command continues from there"):
        fetched = fetch(to, repo=repo or REPO, endpoint=endpoint, revision=revision)
    typer.echo(f"imported {counted(len(fetched.tasks), 'task')} into {to} from {fetched.repo} at {fetched.commit}")
    next_steps.after_fetch(to)


@app.command("inspect")
def inspect_command(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK|SOURCE|FILE.toml",
            help="Name of a task, as listed by 'shipbench list tasks', a SOURCE such as folder:PATH, or a task file.",
            autocompletion=completion.task,
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option("--data", envvar="SHIPBENCH_DATA", help="Folder of VTAB-1k or FGVC; demo tasks need none."),
    ] = None,
    grid: Annotated[
        Path | None,
        typer.Option("--grid", metavar="FILE.png", help="Also write a contact sheet: a few labelled images per class."),
    ] = None,
    jobs: Jobs = None,
) -> None:
    """Show a task's counts per class and split, image sizes, format, fingerprint, and pixel mean and deviation."""
    from shipbench.data.inspection.contact_sheet import check_sheet, write_contact_sheet
    from shipbench.data.inspection.summary import summarise
    from shipbench.tasks import get_task

    inspected = _own_tasks(task) or (get_task(task),)
    if grid is not None and len(inspected) > 1:
        raise InputError(f"{task} has {len(inspected)} tasks, but --grid shows one; inspect the source of one of them")
    if grid is not None:
        check_sheet(grid, "--grid")
    summaries = [summarise(item, data, jobs) for item in inspected]
    if grid is not None:
        write_contact_sheet(inspected[0], data, grid)
    for summary in summaries:
        _print_summary(summary)
    if grid is not None:
        typer.echo(f"wrote {grid}")
    next_steps.after_inspect(inspected[0].name if inspected[0].catalogued else task, data)


def _print_reports(suites: Sequence[Sequence[TaskReport]], list_file: Path | None) -> None:
    """Print a table for each suite, then what was found, of which ``list_file`` gets all images.

    Exits with 1 if there are problems.
    """
    for suite in suites:
        out_console().print(_report_table(suite))
    reports = [report for suite in suites for report in suite]
    for report in reports:
        for kind, sentences in (("problem", report.problems), ("warning", report.warnings), ("note", report.notes)):
            for sentence in sentences:
                typer.echo(printable(f"{kind}: {report.task}: {sentence}"))
    if list_file is not None:
        _write_list(list_file, [finding for report in reports for finding in report.findings])
    bad = sum(not report.ok for report in reports)
    typer.echo(_verdict(bad, len(reports)))
    if bad:
        raise typer.Exit(1)


def _write_list(file: Path, findings: Sequence[Finding]) -> None:
    try:
        # Names of files need not be UTF-8.
        with (
            atomic_path(file) as temporary,
            temporary.open("w", encoding="utf-8", newline="", errors="surrogateescape") as stream,
        ):
            lines = csv.writer(stream)
            lines.writerow(("kind", "image", "equal_to"))
            lines.writerows((finding.kind, finding.image, finding.equal_to) for finding in findings)
    except OSError as error:
        raise InputError(f"--list: cannot write {file}: {system_reason(error)}") from error
    typer.echo(f"wrote {file}: {counted(len(findings), 'image')}")


def _verdict(bad: int, tasks: int) -> str:
    if bad:
        return f"{bad} of {counted(tasks, 'task')} {'has' if bad == 1 else 'have'} problems"
    return "the task is in order" if tasks == 1 else f"all {tasks} tasks are in order"


def _report_table(reports: Sequence[TaskReport]) -> Table:
    splits = ("train", "val", "test") if any("train" in report.counts for report in reports) else _VTAB_SPLITS
    names = [_SHORT_NAMES.get(name, name) for name in splits]
    table = make_table("task", "status", "folder", *names, "format", "pixels", "classes", "data")
    for report in reports:
        table.add_row(*_report_row(report, splits))
    return table


def _report_row(report: TaskReport, splits: Sequence[str]) -> tuple[str, ...]:
    status = "ok" if report.ok else "problems"
    if report.ok and report.warnings:
        status = "warnings"
    counts = [str(report.counts.get(name, "-")) for name in splits]
    sizes = "-"
    if report.smallest and report.largest:
        sizes = " .. ".join(dict.fromkeys(f"{w}x{h}" for w, h in (report.smallest, report.largest)))
    folder = report.folder.name if report.folder else "-"
    short = (report.fingerprint or "-")[:12]
    return report.task, status, folder, *counts, report.image_format or "-", sizes, str(report.classes_seen), short


def _print_summary(summary: TaskSummary) -> None:
    task = summary.task
    name = printable(f"{task.name} ({task.suite}, {task.group})")
    typer.echo(f"{name}: {task.num_classes} classes, format {summary.image_format}")
    typer.echo(f"fingerprint {summary.fingerprint}")
    for note in (task.drawn, summary.warning):
        if note:
            typer.echo(printable(note))
    small, large = ("x".join(map(str, size)) for size in (summary.smallest, summary.largest))
    typer.echo(f"training images: {small} to {large} pixels")
    for note in summary.conversions:
        typer.echo(note)
    for name, values in (("mean", summary.mean), ("std", summary.std)):
        typer.echo(f"{name} of the training pixels (red, green, blue): {', '.join(f'{v:.4f}' for v in values)}")
    names = task.class_names or [str(label) for label in range(task.num_classes)]
    table = make_table("class", *map(task.split_title, summary.counts))
    for label, name in enumerate(names[:_MOST_CLASSES]):
        table.add_row(printable(name), *(str(counts[label]) for counts in summary.counts.values()))
    if len(names) > _MOST_CLASSES:
        table.add_row(f"... {len(names) - _MOST_CLASSES} more", *("" for _ in summary.counts))
    table.add_section()
    table.add_row("all", *(str(counts.sum()) for counts in summary.counts.values()))
    out_console().print(table)
