"""``shipbench evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from shipbench.cli import completion, next_steps, options
from shipbench.cli.documents import print_document, record_row
from shipbench.cli.layout import make_table, printable
from shipbench.counts import counted
from shipbench.errors import DeviceLostError, InputError, StoreError, check_all, one_line, value_of
from shipbench.events import Event, Note
from shipbench.record import ACCURACY, RunRecord
from shipbench.runtime.console import out_console, say, say_once, show_traceback
from shipbench.runtime.interrupts import stopping

if TYPE_CHECKING:
    from shipbench.data.corruptions import Corruption
    from shipbench.results.store import Store
    from shipbench.runs.evaluation_images import EvaluationImages
    from shipbench.runs.evaluation_plan import EvaluationOptions, OpenedEvaluation, PlannedEvaluation
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
    from shipbench.hardware.device import resolve_device
    from shipbench.results.lookup import find_run
    from shipbench.results.store import Store

    store, problems = Store(results), list[str]()
    found = [value_of(partial(find_run, results, prefix), None, problems) for prefix in run]
    run_ids = list(dict.fromkeys(run_id for run_id in found if run_id is not None))
    chosen = _options(on, corrupt, severity, data, checkpoint, device, problems)
    # Every machine has a CPU; looking for other devices imports torch, which takes seconds.
    if device not in ("auto", "cpu"):
        value_of(partial(resolve_device, device), None, problems)
    value_of(store.check_writable, None, problems)
    opened = [] if chosen is None else _opened(store, run_ids, chosen, problems)
    if problems:
        raise InputError(*problems)
    rows, failed = _execute(store, check_all(each.planned for each in opened), force=force)
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
    on: str | None,
    corrupt: str | None,
    severity: str | None,
    data: Path | None,
    checkpoint: str | None,
    device: str,
    problems: list[str],
) -> EvaluationOptions | None:
    """Return the options of the evaluations, and add those that do not fit to ``problems``.

    None if these options do not tell which images to open.
    """
    from shipbench.runs.evaluation_plan import EvaluationOptions

    corruptions = value_of(partial(_corruptions, on, corrupt, severity), (), problems)
    task = None if on is None else value_of(partial(one_task, on), None, problems)
    if task is None and (on is not None or corrupt is None):
        return None
    return EvaluationOptions(task, corruptions, data, checkpoint, device)


def _corruptions(on: str | None, corrupt: str | None, severity: str | None) -> tuple[Corruption, ...]:
    from shipbench.data.corruptions import parse_corruptions

    if corrupt is not None:
        return parse_corruptions(corrupt, severity)
    if severity is not None:
        raise InputError("--severity needs --corrupt, which names the corruptions")
    if on is None:
        raise InputError("name the images with --on, or a corruption of the run's test images with --corrupt")
    return ()


def one_task(text: str) -> Task:
    """Return the only task that ``--on`` names; raise ``InputError`` if there are several."""
    from shipbench.tasks import parse_tasks

    tasks = parse_tasks(text, "--on")
    if len(tasks) > 1:
        raise InputError(f"--on {text} names {len(tasks)} tasks; name one")
    return tasks[0]


def _opened(
    store: Store, run_ids: Sequence[str], chosen: EvaluationOptions, problems: list[str]
) -> list[OpenedEvaluation]:
    """Return what can be opened to evaluate the runs; add to ``problems`` why the rest cannot."""
    from shipbench.runs.evaluation_plan import open_evaluation

    opened = [value_of(partial(open_evaluation, store, run_id, chosen), None, problems) for run_id in run_ids]
    return [each for each in opened if each is not None]


def _execute(store: Store, plans: Sequence[PlannedEvaluation], *, force: bool) -> tuple[list[_Row], list[str]]:
    """Return each run beside one of its evaluations, and the ids of the runs that could not be evaluated.

    A failure stops no other run. Raises the error of the first one if no run has an evaluation.
    """
    for plan in plans:
        say_warning(plan.images)
    from shipbench.runs.evaluate import execute_evaluation

    total = sum(len(plan.options.corruptions) or 1 for plan in plans)
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
