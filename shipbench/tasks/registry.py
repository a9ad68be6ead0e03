"""Tasks and suites looked up by name."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from shipbench.errors import InputError, check_all, did_you_mean
from shipbench.runtime.files import expanded
from shipbench.settings import comma_list
from shipbench.tasks.catalogue import ALIASES, SETS, SUITES, TASKS, VTAB, Suite, Task, is_catalogued
from shipbench.tasks.own import free_name, is_source, renamed, source_of_path, task_of_source
from shipbench.tasks.task_file import load_task_file

__all__ = [
    "SUITES",
    "TASKS",
    "canonical_name",
    "get_task",
    "likely_vtab_task",
    "parse_tasks",
    "suite_of",
    "suite_tasks",
]

# Names in other papers, data sets and harnesses. They are only suggested, because the user knows what they stand for.
_FOREIGN_NAMES: dict[str, str] = {
    "cifar_100": "cifar100",
    "caltech": "caltech101",
    "caltech_101": "caltech101",
    "flowers": "oxford_flowers102",
    "flowers102": "oxford_flowers102",
    "oxford_flowers": "oxford_flowers102",
    "pet": "oxford_iiit_pet",
    "pets": "oxford_iiit_pet",
    "oxford_pets": "oxford_iiit_pet",
    "sun": "sun397",
    "camelyon": "patch_camelyon",
    "pcam": "patch_camelyon",
    "resisc": "resisc45",
    "retinopathy": "diabetic_retinopathy",
    "clevr_count_all": "clevr_count",
    "clevr_closest": "clevr_dist",
    "clevr_closest_object_distance": "clevr_dist",
    "clevr_distance": "clevr_dist",
    "kitti_dist": "kitti",
    "kitti_closest_vehicle_distance": "kitti",
    "dsprites_label_x_position": "dsprites_loc",
    "dsprites_location": "dsprites_loc",
    "dsprites_position": "dsprites_loc",
    "dspr_loc": "dsprites_loc",
    "dsprites_label_orientation": "dsprites_ori",
    "dsprites_orient": "dsprites_ori",
    "dsprites_orientation": "dsprites_ori",
    "dspr_ori": "dsprites_ori",
    "smallnorb_azimuth": "smallnorb_azi",
    "smallnorb_label_azimuth": "smallnorb_azi",
    "snorb_azim": "smallnorb_azi",
    "smallnorb_elevation": "smallnorb_ele",
    "smallnorb_label_elevation": "smallnorb_ele",
    "snorb_elev": "smallnorb_ele",
}
_CLOSE = 0.75
_CLEARLY_CLOSER = 0.05


def get_task(name: str) -> Task:
    """Return the task called ``name``, its canonical name or a folder alias (ignoring case), or the task of a SOURCE.

    A relative location of a SOURCE such as ``folder:bugs`` starts from the working directory; its images are not opened
    here. Raises ``InputError`` for any other name.
    """
    if not isinstance(name, str):
        raise InputError(f"task is {name!r:.60}; give a name, or a SOURCE such as 'folder:PATH'")
    task = TASKS.get(canonical_name(name)) or _in_any_case(name)
    if task is not None:
        return task
    if is_source(name):
        return _numbered(task_of_source(name, Path.cwd()), set())
    if name.lower() in SETS:
        raise InputError(f"{name!r} is a set of tasks; name one of them")
    if source := source_of_path(name):
        raise InputError(f"unknown task {name!r}; {_use_of_copy(expanded(name), source)}")
    likely = likely_vtab_task(name)
    if "/" in name and not likely:
        raise InputError(f"unknown task {name!r}; name images as in folder:PATH, or see 'shipbench list tasks'")
    hint = f" (did you mean {likely.name!r}?)" if likely else did_you_mean(name, [*TASKS, *SETS])
    raise InputError(f"unknown task {name!r}{hint}; see 'shipbench list tasks'")


def _use_of_copy(place: Path, source: str) -> str:
    """Return how to name what lies at a path: the catalogued tasks, if it looks like a copy of some, and ``source``."""
    base, tasks = _copy_at(place)
    if not tasks:
        return f"to use the images there, write {source}"
    suites = [(suite, tuple(task for task in tasks if task.suite == suite.name)) for suite in SUITES]
    names = ",".join(_called(members) for _, members in suites if members)
    titles = " and ".join(suite.title for suite, members in suites if members)
    return f"write {names} --data {shlex.quote(str(base))} for {titles}, or {source} for images of your own"


def _copy_at(place: Path) -> tuple[Path, list[Task]]:
    """Return the catalogued task that a folder is called after and the folder above, or the tasks that lie in it."""
    name = Path(os.path.normpath(place.absolute())).name
    if name in ALIASES:
        return Path(os.path.normpath(place / "..")), [TASKS[ALIASES[name]]]
    names: set[str] = set()
    with suppress(OSError):
        names.update(ALIASES[child.name] for child in place.iterdir() if child.name in ALIASES and child.is_dir())
    return place, [task for task in TASKS.values() if task.name in names]


def _called(tasks: tuple[Task, ...]) -> str:
    return next((name for name, members in SETS.items() if members == tasks), ",".join(task.name for task in tasks))


def canonical_name(name: str) -> str:
    """Return the catalogue's name for a folder alias, and any other name unchanged."""
    return ALIASES.get(name, name)


def _in_any_case(name: str) -> Task | None:
    """Return the catalogue's task whose name or alias is ``name`` in another case, if only one has it."""
    meant = {canonical_name(other) for other in (*TASKS, *ALIASES) if other.lower() == name.lower()}
    return TASKS[meant.pop()] if len(meant) == 1 else None


def likely_vtab_task(name: str) -> Task | None:
    """Return the task of VTAB-1k that a name from elsewhere most likely means; ``None`` if none or several fit."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").removeprefix("vtab_")
    choices = {alias: task for task in VTAB.tasks for alias in task.folder_names}
    if plain in choices or plain in _FOREIGN_NAMES:
        return choices.get(plain) or TASKS[_FOREIGN_NAMES[plain]]
    return _closest(plain, choices)


def _closest(name: str, choices: dict[str, Task]) -> Task | None:
    import difflib

    digits = "".join(re.findall("[0-9]", name))
    scores: dict[str, float] = {}
    for alias, task in choices.items():
        score = difflib.SequenceMatcher(None, name, alias).ratio()
        scores[task.name] = max(score, scores.get(task.name, 0.0))
    best, second = sorted(scores, key=lambda task_name: -scores[task_name])[:2]
    # CIFAR-10 is another data set than CIFAR-100, however similar the names are.
    same_number = digits in ("", "".join(re.findall("[0-9]", best)))
    clear = scores[best] >= max(_CLOSE, scores[second] + _CLEARLY_CLOSER)
    return TASKS[best] if clear and same_number else None


def suite_of(task: Task) -> Suite:
    """Return the suite that ``task`` belongs to; that of a task outside the catalogue holds this task alone."""
    if not task.catalogued:
        backbone = task.suite_backbone or VTAB.backbone
        return Suite(task.suite, task.suite, (task,), f"the suite of task {task.name}", backbone)
    return next(suite for suite in SUITES if suite.name == task.suite)


def suite_tasks(task: Task) -> tuple[str, ...]:
    """Return the names of all tasks in the suite of ``task``."""
    return tuple(member.name for member in suite_of(task).tasks) if task.catalogued else task.suite_tasks


def parse_tasks(text: str, option: str = "--tasks") -> list[Task]:
    """Read a comma-separated list of suites, groups, task names, SOURCEs and task files, in the order given.

    Repeats are left out. The task of a SOURCE whose name is taken gets a number. Raises ``InputError`` for an empty
    list, in the name of ``option``, one for all unknown names, and one for a task file whose tasks or suite have the
    name of another one.
    """
    parts = comma_list(text)
    if not parts:
        raise InputError(f"{option} is empty; name a suite, a group or tasks, such as demo")
    named = dict(zip(parts, check_all(partial(_named_by, part) for part in parts), strict=True))
    bare = [task for part in parts if is_source(part) for task in named[part]]
    tasks = dict.fromkeys(task for of_part in named.values() for task in of_part)
    others = [task for task in tasks if task not in bare]
    _refuse_clashes([task for task in others if not task.catalogued])
    taken = {name for task in others for name in (task.name, task.suite)}
    numbered: dict[Task, Task] = {}
    for task in dict.fromkeys(bare):
        numbered[task] = _numbered(task, taken)
        taken.add(numbered[task].name)
    return [numbered.get(task, task) for task in tasks]


def _named_by(part: str) -> Sequence[Task]:
    if part.lower() in SETS:
        return SETS[part.lower()]
    if is_source(part):
        return (task_of_source(part, Path.cwd()),)
    return load_task_file(part).tasks if part.lower().endswith(".toml") else (get_task(part),)


def _numbered(task: Task, taken: Collection[str]) -> Task:
    """Return the task of a bare SOURCE under a name that neither the catalogue nor ``taken`` has."""
    name = free_name(task.name, taken)
    return task if name == task.name else renamed(task, name)


def _refuse_clashes(tasks: Sequence[Task]) -> None:
    """Refuse tasks of task files that have the name of another one, or that of a catalogued task or suite."""
    suites: dict[str, Task] = {}
    names: set[str] = set()
    for task in tasks:
        for kind, name in (("suite", task.suite), ("task", task.name)):
            if is_catalogued(name):
                raise InputError(f"{kind} {name!r} of a task file has a name of the catalogue; give it another `name`")
        if suites.setdefault(task.suite, task).suite_tasks != task.suite_tasks:
            raise InputError(f"two task files have a suite called {task.suite!r}; give one of them another `name`")
        if task.name in names:
            raise InputError(f"two task files have a task called {task.name!r}; give one of them another `name`")
        names.add(task.name)
