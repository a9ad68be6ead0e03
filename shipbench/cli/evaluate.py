"""``shipbench evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from shipbench.cli import completion, next_steps, options
from shipbench.cli.documents import print_document, record_row
from shipbench.cli.layout import make_table, printable
from shipbench.counts import counted
from shipbench.errors import DeviceLostError, InputError, StoreError, one_line
from shipbench.events import Event, Note
from shipbench.record import ACCURACY, RunRecord
from shipbench.runtime.console import out_console, say, say_once, show_traceback
from shipbench.runtime.interrupts import stopping

if TYPE_CHECKING:
    from shipbench.results.store import Store
    from shipbench.runs.evaluation_images import EvaluationImages
    from shipbench.runs.evaluation_plan import EvaluationOptions
    from shipbench.tasks import Task

# A run and one of its evaluations.
_Row: TypeAlias = tuple[RunRecord, RunRecord]


def evaluate(
    run: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN", help="Run ids or unique prefixes; see 'list runs'.", autocompletion=completion.runs
        ),
    ],
    on: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Images of the same classes: a SOURCE, a task name, or a task file with one task; default: the run's "
            "own test images.",
        ),
    ] = None,
    corrupt: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Corrupt the images: any of gaussian-noise, blur, jpeg, contrast, comma-separated, or all.",
        ),
    ] = None,
    severity: Annotated[
        str | None,
        typer.Option(metavar="N,...", help="Severities from 1 to 5, as in 3 or 1-5; default: 1-5."),
    ] = None,
    data: options.Data = None,
    results: options.Results = Path("results"),
    checkpoint: options.Checkpoint = None,
    device: options.Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Repeat evaluations that are done already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
) -> None:
    """Score finished runs on other images of the same classes, or on corrupted test images; each score is a record."""
    from shipbench.results.lookup import find_run
    from shipbench.results.store import Store

    store = Store(results)
    run_ids = list(dict.fromkeys(find_run(results, prefix) for prefix in run))
    chosen = _options(on, corrupt, severity, data, checkpoint, device)
    store.check_writable()
    rows, failed = _execute(store, run_ids, chosen, force=force)
    if as_json:
        print_document("evaluate/1", results=results, evaluations=[record_row(record) for _, record in rows])
    else:
        _show(rows)
    if failed:
        say(f"{len(failed)} of {counted(len(run_ids), 'run')} could not be evaluated: {', '.join(failed)}")
        sys.exit(1)
    if not as_json:
        next_steps.after_evaluate(results)


def _options(
    on: str | None, corrupt: str | None, severity: str | None, data: Path | None, checkpoint: str | None, device: str
) -> EvaluationOptions:
    from shipbench.data.corruptions import parse_corruptions

    if corrupt is None and severity is not None:
        raise InputError("--severity needs --corrupt, which names the corruptions")
    corruptions = () if corrupt is None else parse_corruptions(corrupt, severity)
    task = None if on is None else one_task(on)
    from shipbench.runs.evaluation_plan import EvaluationOptions

    return EvaluationOptions(task, corruptions, data, checkpoint, device)


def one_task(text: str) -> Task:
    """Return the only task that ``--on`` names; raise ``InputError`` if there are several."""
    from shipbench.tasks import parse_tasks

    tasks = parse_tasks(text, "--on")
    if len(tasks) > 1:
        raise InputError(f"--on {text} names {len(tasks)} tasks; name one")
    return tasks[0]


def _execute(
    store: Store, run_ids: Sequence[str], chosen: EvaluationOptions, *, force: bool
) -> tuple[list[_Row], list[str]]:
    """Return each run beside one of its evaluations, and the ids of the runs that could not be evaluated.

    A failure stops no other run. Raises the error of the first one if no run has an evaluation.
    """
    from shipbench.hardware.device import resolve_device
    from shipbench.runs.evaluation_plan import plan_evaluation

    # A missing device is refused before any image is opened.
    resolve_device(chosen.device)
    plans = [plan_evaluation(store, run_id, chosen) for run_id in run_ids]
    for plan in plans:
        say_warning(plan.images)
    from shipbench.runs.evaluate import execute_evaluation

    total = len(plans) * (len(chosen.corruptions) or 1)
    rows: list[_Row] = []
    failures: dict[str, Exception] = {}
    with stopping(f"finished evaluations are kept in {store.root}, and the same command continues from there"):
        for plan in plans:
            try:
                for record in execute_evaluation(plan, force=force, listener=say_note):
                    rows.append((plan.parent, record))
                    images = images_in_words(plan.parent, record)
                    say(f"{len(rows)} of {total}: {plan.parent.run_id} on {images}")
            except (StoreError, DeviceLostError):
                raise
            except Exception as error:
                if len(plans) == 1 and not rows:
                    raise
                show_traceback()
                say(f"run {plan.parent.run_id} FAILED: {one_line(error)}")
                # The frames in its traceback hold the model and the images.
                failures[plan.parent.run_id] = error.with_traceback(None)
    if not rows:
        raise next(iter(failures.values()))
    return rows, list(failures)


def say_warning(images: EvaluationImages | None) -> None:
    """Print, once, what the user should know of the source of some images."""
    if images is not None and images.copy.warning:
        say_once(images.copy.warning)


def say_note(event: Event) -> None:
    """Print a note of an evaluation, and nothing of its other events."""
    if isinstance(event, Note):
        say(event.text)


def images_in_words(parent: RunRecord, record: RunRecord) -> str:
    """Return what the run was evaluated on, in words."""
    images = "its test images" if record.data_fingerprint == parent.data_fingerprint else record.task
    return f"{images}, {record.corruption} {record.severity}" if record.corruption else images


def _show(rows: Sequence[_Row]) -> None:
    table = make_table("run", "method", "evaluated on", "images", "clean %", "here %", title="test accuracy")
    for parent, record in rows:
        clean, here = (f"{100 * each.headline_acc:.1f}" for each in (parent, record))
        metric = "" if record.headline_metric == ACCURACY else " (mean per class)"
        images = printable(images_in_words(parent, record) + metric)
        table.add_row(parent.run_id, parent.method, images, str(record.n_test), clean, here)
    out_console().print(table)
