"""Which split of a source is the train, val and test split: by its name, or by the task file's key ``splits``."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from shipbench.data.formats.options import table_option
from shipbench.data.listings import SplitRole
from shipbench.errors import InputError

ROLES: tuple[SplitRole, ...] = ("train", "val", "test")

WORDS: dict[str, SplitRole] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""The names of splits, in lower case."""

_LISTED = 3
# Columns that are not passed over if their values leave open which images are train, and those that divide images if
# they hold nothing but names of splits, without train.
_UNCLEAR = ("split", "set", "subset")
_DIVIDING = (*_UNCLEAR, "fold", "partition")
_KEYWORD = re.compile(
    rf"(?:^|[-._ 0-9])({'|'.join(sorted(WORDS, key=len, reverse=True))})(?:set|data|images)?(?=$|[-._ 0-9])"
)


def role_of(name: str) -> SplitRole | None:
    """Return the role that a split's name means, ignoring case; ``None`` if it means none."""
    return WORDS.get(name.strip().lower())


def role_within(name: str) -> SplitRole | None:
    """Return the role of the only split name that occurs in ``name``, as in ``birds-test-2.csv``.

    A split name counts if it is bounded by ``-``, ``.``, ``_``, a space, a digit or an end; ``set``, ``data`` or
    ``images`` may follow it, as in ``TestSet``. Several roles give ``None``.
    """
    roles = {WORDS[word] for word in _KEYWORD.findall(name.lower())}
    return roles.pop() if len(roles) == 1 else None


def split_columns(columns: Mapping[str, Iterable[str]], options: Mapping[str, Any], where: object) -> list[str]:
    """Return the columns that hold nothing but names of splits, train and another role among them.

    Without such a column, those named like one of splits count that hold other names than train alone. One whose values
    leave open which images are train raises ``InputError``: test images would be trained on. If the task file has the
    key ``splits``, columns count of which it names a value that is no name of a split. The columns of the images and
    labels never count.
    """
    taken = [options.get(key) for key in ("image_column", "label_column")]
    distinct = {name: list(dict.fromkeys(values)) for name, values in columns.items() if name not in taken}
    roles = {name: {role_of(value) for value in values} for name, values in distinct.items()}
    divided = [name for name, found in roles.items() if "train" in found and len(found - {None}) > 1]
    whole = [name for name in divided if None not in roles[name]]
    unclear = [name for name, found in roles.items() if _is_unclear(name, found, len(distinct[name]))]
    untrained = [name for name, found in roles.items() if name.lower() in _DIVIDING and not found & {"train", None}]
    if whole:
        return whole
    if wanted := [str(value) for chosen in table_option(options, "splits").values() for value in _as_list(chosen)]:
        candidates = [name for name in distinct if name in (*divided, *unclear, *untrained)]
        return [name for name in candidates if _is_meant(distinct[name], None in roles[name], wanted)]
    if unclear:
        raise _unclear_column(unclear[0], distinct[unclear[0]], where)
    return untrained


def of_column(column: str | None, where: object) -> object:
    """Return what names of splits are read from, for messages: a column of ``where``, if one holds them."""
    return where if column is None else f"the column {column!r} of {where}"


def _is_unclear(name: str, roles: Collection[SplitRole | None], values: int) -> bool:
    """Return whether a column is named like one of splits, but its values leave open which images are train."""
    lower = name.lower()
    several = (lower == "split" and values > 1) or (lower in _UNCLEAR and "train" in roles and len(roles) > 2)
    return several and None in roles


def _is_meant(values: Sequence[str], has_stray: bool, wanted: Sequence[str]) -> bool:
    """Return whether ``splits`` names one of the values: one without a role, if the column has such values."""
    telling = [value for value in values if not has_stray or role_of(value) is None]
    return any(_match(value, telling) is not None for value in wanted)


def _unclear_column(name: str, values: Sequence[str], where: object) -> InputError:
    stray = [value for value in values if role_of(value) is None]
    every = ", ".join(f'"{value}"' for value in values[:_LISTED]) + (", ..." if len(values) > _LISTED else "")
    held = ", ".join(map(repr, stray[:_LISTED]))
    return InputError(
        f"{of_column(name, where)} looks like that of the split, but holds {held}; say in the task file what its "
        f'values mean: splits = {{ train = "...", test = "{stray[0]}" }}, or, if it divides nothing, '
        f"splits = {{ train = [{every}] }}"
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def assign_roles(
    names: Iterable[str],
    options: Mapping[str, Any],
    where: object,
    meaning: Callable[[str], SplitRole | None] = role_of,
) -> tuple[dict[str, SplitRole], str]:
    """Map the names of a source's splits to roles, and say why there is nothing to train on: no split is train.

    Names without a role are left out. The key ``splits`` of the task file (``splits = { test = "val" }``; a role may
    have several names) takes precedence over ``meaning``, the role that a name stands for. Raises ``InputError`` if a
    role has several candidates, if no split has a role, and if there is a val split beside train but no test split and
    ``splits`` does not say which of the two it is.
    """
    names = list(dict.fromkeys(names))
    roles = _chosen(names, options, where)
    taken = set(roles.values())
    for name in names:
        role = meaning(name)
        if name not in roles and role is not None and role not in taken:
            rivals = [other for other in names if other not in roles and meaning(other) == role]
            if len(rivals) > 1:
                raise InputError(
                    f"{where} has several {role} splits ({', '.join(rivals)}); "
                    f'choose in the task file: splits = {{ {role} = "{rivals[0]}" }}'
                )
            roles[name] = role
    if "train" in roles.values():
        _require_test(roles, options, where)
        return roles, ""
    if not roles:
        raise InputError(_no_train(names, where))
    return roles, _no_train(names, where)


def _chosen(names: list[str], options: Mapping[str, Any], where: object) -> dict[str, SplitRole]:
    roles: dict[str, SplitRole] = {}
    for key, value in table_option(options, "splits").items():
        if key not in ROLES:
            raise InputError(f"splits.{key} in the task file is unknown; the roles are train, val and test")
        for wanted in map(str, _as_list(value)):
            name = _match(wanted, names)
            if name is None:
                listed = ", ".join(names[:20]) or "none"
                raise InputError(
                    f"splits.{key} in the task file names {wanted!r}, but the splits of {where} are {listed}"
                )
            if roles.setdefault(name, key) != key:
                raise InputError(f"splits in the task file uses {name!r} as {roles[name]} and as {key}; choose one")
    return roles


def _match(wanted: str, names: list[str]) -> str | None:
    if wanted in names:
        return wanted
    return next((name for name in names if name.strip().lower() == wanted.strip().lower()), None)


def _no_train(names: Sequence[str], where: object) -> str:
    listed = ", ".join(names[:20]) or "none"
    return f'{where} has no train split (its splits: {listed}); name it in the task file: splits = {{ train = "..." }}'


def _require_test(roles: Mapping[str, SplitRole], options: Mapping[str, Any], where: object) -> None:
    """Raise ``InputError`` if a val split may be the test split."""
    val = next((name for name, role in roles.items() if role == "val"), None)
    if val is not None and "test" not in roles.values() and "val" not in table_option(options, "splits"):
        raise InputError(
            f"{where} has a val split ({val}) but no test split; decide in the task file: "
            f'splits = {{ test = "{val}" }} tests on it, splits = {{ val = "{val}" }} takes a fifth of train for test'
        )
