"""Refuse what cannot run before the network is used or weights are loaded: every problem, in one error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from shipbench.backbones.pinned import check_checkpoint
from shipbench.data.sources import completed, open_filled
from shipbench.errors import InputError
from shipbench.hardware.precision import precision_elsewhere, precision_on
from shipbench.results.store import Store
from shipbench.runtime.checkpoint_interval import checkpoint_seconds
from shipbench.runtime.console import say_once
from shipbench.spec import RunSpec
from shipbench.tasks import Task

Planned = TypeVar("Planned")


def preflight(
    make: Callable[[Sequence[Task]], Planned],
    template: RunSpec,
    tasks: Sequence[Task],
    results: Path | None,
    *,
    shots: Sequence[int | None] = (None,),
    elsewhere: bool = False,
    others: Sequence[Callable[[], object]] = (),
    note: Callable[[str], object] = say_once,
    refused: Sequence[str] = (),
) -> Planned:
    """Return ``make(tasks)``, which builds the specs of a command, after checking what all of them need.

    Checks the split files of ``tasks`` or lists their images, draws the ``shots``, checks the settings (by calling
    ``make``), the checkpoint file and the device of ``template``, that the folder ``results`` can be written to, and
    the interval of checkpoints; ``results`` is None for a dry run, in which ``note`` receives the notes of the sources.
    Tasks outside the catalogue reach ``make`` with the sizes and class names of their sources. With ``elsewhere``, the
    device need not be on this machine. ``others`` are further checks that raise ``InputError``, and ``refused`` are
    problems found before. Raises one ``InputError`` that names every problem, each once.
    """
    made: list[Planned] = []
    notes: list[str] = []
    opened = list(tasks)
    most_shots = max(number or 0 for number in shots)

    def open_task(position: int) -> None:
        task = replace(tasks[position], shots=most_shots)
        source = open_filled(task, template.data, template.splits)
        opened[position] = replace(completed(task, source), shots=0)
        if results is None:
            notes.append(source.warning)

    precision_of = precision_elsewhere if elsewhere else precision_on
    checks: list[Callable[[], object]] = [
        *(partial(open_task, position) for position in range(len(tasks))),
        lambda: made.append(make(opened)),
        partial(check_checkpoint, template.checkpoint),
        *others,
    ]
    # Every machine has a CPU; looking for other devices may import torch, which takes seconds.
    if template.device not in ("auto", "cpu"):
        checks.append(partial(precision_of, template.device, template.precision))
    if results is not None:
        checks += [Store(results).check_writable, checkpoint_seconds]
    if problems := [*refused, *_problems(checks)]:
        raise InputError(*problems)
    # Runs print them when they load the images.
    for text in filter(None, notes):
        note(text)
    return made[0]


def _problems(checks: Iterable[Callable[[], object]]) -> list[str]:
    """Return the problems that the failing checks name."""
    problems: list[str] = []
    for check in checks:
        try:
            check()
        except InputError as error:
            problems.extend(error.problems)
        except OSError as error:
            if error.filename is None:
                raise
            problems.append(f"{error.filename} cannot be used: {error.strerror}")
    return problems
