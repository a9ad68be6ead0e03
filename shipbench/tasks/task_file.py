"""Task files: a suite of one's own in TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from shipbench.errors import InputError, did_you_mean
from shipbench.runtime.files import read_toml
from shipbench.runtime.plug_ins import find_plug_in, load_plug_in
from shipbench.tasks.catalogue import VTAB, Augment, Draw, Metric, Resize, Suite, Task
from shipbench.tasks.own import free_name, split_source, task_of_source

Value = TypeVar("Value")

_SUITE_KEYS = ("name", "backbone")
_TASK_KEYS = (
    *("name", "group", "source", "train", "val", "test"),
    *("resize", "augment", "metric", "classes", "allow_leaks"),
)
_GROUP = "shipbench.sources"


def load_task_file(path: Path | str) -> Suite:
    """Read a task file and return its suite, a sequence of tasks.

    Relative locations start from the folder of the file. No source is opened. Raises ``InputError`` for a file that is
    no TOML, for unknown keys and for values that do not fit.
    """
    file = Path(path)
    content = read_toml(file, "task file")
    _refuse_unknown(content, ("suite", "task"), f"task file {file}")
    tables = content.get("task", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"task file {file} has no task; begin each with [[task]]")
    suite = _suite(content.get("suite", {}), file)
    tasks = _numbered([_task(table, file, suite) for table in tables], ["name" in table for table in tables])
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"task file {file} has two tasks called {name!r}; give each a name of its own")
    return replace(suite, tasks=tuple(replace(task, suite_tasks=tuple(names)) for task in tasks))


def _numbered(tasks: Sequence[Task], have_names: Sequence[bool]) -> list[Task]:
    """Return the tasks, those that the file gives no name under one that neither it nor the catalogue has."""
    taken = {task.name for task, has_name in zip(tasks, have_names, strict=True) if has_name}
    numbered = []
    for task, has_name in zip(tasks, have_names, strict=True):
        numbered.append(task if has_name else replace(task, name=free_name(task.name, taken)))
        taken.add(numbered[-1].name)
    return numbered


def _suite(table: Any, file: Path) -> Suite:
    if not isinstance(table, dict):
        raise InputError(f"task file {file}: suite is not a table; begin it with [suite]")
    _refuse_unknown(table, _SUITE_KEYS, f"[suite] in {file}")
    name = _text(table, "name", file.stem, file)
    return Suite(name, name, (), f"the tasks of {file.name}", _text(table, "backbone", VTAB.backbone, file))


def _task(table: Mapping[str, Any], file: Path, suite: Suite) -> Task:
    if "source" not in table:
        raise InputError(f'task file {file}: task {table.get("name", "")!r} has no source, as in "folder:PATH"')
    source = _text(table, "source", "", file)
    kind, _ = split_source(source)
    bare = task_of_source(source, file.parent)
    name = _text(table, "name", bare.name, file)
    where = f"task {name!r} in {file}"
    of_source = _option_names(kind)
    if of_source is not None:
        _refuse_unknown(table, (*_TASK_KEYS, *of_source), where)
    return replace(
        bare,
        name=name,
        group=_text(table, "group", bare.group, file),
        suite=suite.name,
        suite_backbone=suite.backbone,
        options=_json({key: value for key, value in table.items() if key not in _TASK_KEYS}, where),
        class_names=_class_names(table.get("classes", []), where),
        draw=Draw(*(_number(table, key, where) for key in ("train", "val", "test"))),
        resize=_choice(table, "resize", get_args(Resize), where),
        augment=_choice(table, "augment", get_args(Augment), where),
        metric=_choice(table, "metric", get_args(Metric), where),
        allow_leaks=_truth(table, "allow_leaks", where),
        file=str(file),
        named="name" in table,
    )


def _option_names(kind: str) -> tuple[str, ...] | None:
    """Return the keys that a kind of source reads itself; None if the kind is unknown or does not declare them."""
    point = find_plug_in(_GROUP, kind, "source")
    # Only sources that read locations have the attribute.
    return None if point is None else getattr(load_plug_in(point, "source"), "option_names", None)


def _refuse_unknown(table: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in names:
            raise InputError(
                f"unknown key {key!r} of {where}{did_you_mean(key, names)}; choose from {', '.join(names)}"
            )


def _text(table: Mapping[str, Any], key: str, default: str, file: Path) -> str:
    value = table.get(key, default)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"task file {file}: {key} is {value!r}; it must be a text that is not empty")
    return value.strip()


def _number(table: Mapping[str, Any], key: str, where: str) -> int | None:
    value = table.get(key, "all")
    if value == "all":
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f'{key} of {where} is {value!r}; it must be a number of images of at least 1, or "all"')
    return value


def _choice(table: Mapping[str, Any], key: str, choices: tuple[Value, ...], where: str) -> Value:
    """Return the value of ``key``, by default the first choice."""
    value = table.get(key, choices[0])
    if value not in choices:
        raise InputError(f"{key} of {where} is {value!r}; choose from {', '.join(str(c) for c in choices if c)}")
    return choices[choices.index(value)]


def _truth(table: Mapping[str, Any], key: str, where: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise InputError(f"{key} of {where} is {value!r}; it must be true or false")
    return value


def _class_names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(f'classes of {where} is not a list of names, as in ["ant", "bee"]')
    if len(set(value)) < len(value):
        raise InputError(f"classes of {where} names a class twice")
    return tuple(value)


def _json(options: Mapping[str, Any], where: str) -> str:
    try:
        return json.dumps(options, sort_keys=True)
    except TypeError as error:
        raise InputError(f"{where} has a date or a time where its source takes none: {options}") from error
