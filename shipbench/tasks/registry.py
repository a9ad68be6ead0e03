"""Tasks and suites looked up by name."""

from __future__ import annotations

from shipbench.errors import InputError, did_you_mean
from shipbench.tasks.catalogue import DEMO, DEMO_TINY, GROUPS, VTAB, Suite, Task

SUITES: tuple[Suite, ...] = (VTAB, DEMO, DEMO_TINY)

TASKS: dict[str, Task] = {task.name: task for suite in SUITES for task in suite.tasks}

_ALIASES: dict[str, str] = {alias: task.name for task in TASKS.values() for alias in task.folder_names}

_SETS: dict[str, tuple[Task, ...]] = {
    "all": VTAB.tasks,
    **{suite.name: suite.tasks for suite in SUITES},
    **{group.lower(): tuple(task for task in VTAB.tasks if task.group == group) for group in GROUPS},
}


def get_task(name: str) -> Task:
    """Return the task called ``name``, its canonical name or a folder alias; raise ``InputError`` for any other."""
    name = canonical_name(name)
    if name in TASKS:
        return TASKS[name]
    if name in _SETS:
        raise InputError(f"{name!r} is a set of tasks; name one of them")
    raise InputError(f"unknown task {name!r}{did_you_mean(name, [*TASKS, *_SETS])}; see 'shipbench list tasks'")


def canonical_name(name: str) -> str:
    """Return the catalogue's name for a folder alias, and any other name unchanged."""
    return _ALIASES.get(name, name)


def suite_of(task: Task) -> Suite:
    """Return the suite that ``task`` belongs to."""
    return next(suite for suite in SUITES if suite.name == task.suite)


def parse_tasks(text: str) -> list[Task]:
    """Read a comma-separated list of suites, groups and task names, in that order and without repeats."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise InputError("--tasks is empty; name a suite, a group or tasks, as in --tasks demo")
    tasks = [task for name in names for task in _SETS.get(name.lower()) or (get_task(name),)]
    return list(dict.fromkeys(tasks))
