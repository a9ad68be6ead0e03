"""Which split of a source is the train, val and test split: by its name, or by the task file's key ``splits``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
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

_KEYWORD = re.compile(rf"(?:^|[-._ 0-9])({'|'.join(sorted(WORDS, key=len, reverse=True))})(?=$|[-._ 0-9])")


def role_of(name: str) -> SplitRole | None:
    """Return the role that a split's name means, in any case; ``None`` if it means none."""
    return WORDS.get(name.strip().lower())


def role_within(name: str) -> SplitRole | None:
    """Return the role of the only split name that occurs in ``name``, as in ``birds-test-2.csv``.

    A split name counts if it is bounded by ``-``, ``.``, ``_``, a space, a digit or an end.
    Several roles give ``None``.
    """
    roles = {WORDS[word] for word in _KEYWORD.findall(name.lower())}
    return roles.pop() if len(roles) == 1 else None


def split_columns(columns: Mapping[str, Iterable[str]], options: Mapping[str, Any], where: object) -> list[str]:
    """Return the columns that hold nothing but names of splits, train and another role among them.

    If the task file has the key ``splits``, columns that hold other values as well count too. Without the key, such a
    column raises ``InputError``, and so does one called ``split`` of other values: the test images would be drawn anew.
    """
    distinct = {name: list(dict.fromkeys(values)) for name, values in columns.items()}
    roles = {name: {role_of(value) for value in values} for name, values in distinct.items()}
    named = [name for name, found in roles.items() if "train" in found and len(found - {None}) > 1]
    whole = [name for name in named if None not in roles[name]]
    half = [name for name in named if None in roles[name]]
    half += [name for name in distinct if name.lower() == "split" and name not in named and len(distinct[name]) > 1]
    if whole or not half:
        return whole
    if table_option(options, "splits"):
        return half
    stray = [value for value in distinct[half[0]] if role_of(value) is None]
    raise InputError(
        f"the column {half[0]!r} of {where} looks like that of the split, but holds {', '.join(map(repr, stray[:3]))}; "
        f'say in the task file what its values mean: splits = {{ train = "...", test = "{stray[0]}" }}'
    )


def assign_roles(
    names: Iterable[str],
    options: Mapping[str, Any],
    where: object,
    meaning: Callable[[str], SplitRole | None] = role_of,
) -> dict[str, SplitRole]:
    """Map the names of a source's splits to roles; names without a role are left out.

    The key ``splits`` of the task file (``splits = { test = "val" }``; a role may have several names) takes precedence
    over ``meaning``, the role that a name stands for. Raises ``InputError`` if a role has several candidates, if no
    split is train, and if there is a val split but no test split and ``splits`` does not say which of the two it is.
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
    _require_train_and_test(names, roles, options, where)
    return roles


def _chosen(names: list[str], options: Mapping[str, Any], where: object) -> dict[str, SplitRole]:
    roles: dict[str, SplitRole] = {}
    for key, value in table_option(options, "splits").items():
        if key not in ROLES:
            raise InputError(f"splits.{key} in the task file is unknown; the roles are train, val and test")
        for wanted in map(str, value if isinstance(value, list) else [value]):
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


def _require_train_and_test(
    names: list[str], roles: Mapping[str, SplitRole], options: Mapping[str, Any], where: object
) -> None:
    if "train" not in roles.values():
        listed = ", ".join(names[:20]) or "none"
        raise InputError(
            f'{where} has no train split (its splits: {listed}); name it in the task file: splits = {{ train = "..." }}'
        )
    val = next((name for name, role in roles.items() if role == "val"), None)
    if val is not None and "test" not in roles.values() and "val" not in table_option(options, "splits"):
        raise InputError(
            f"{where} has a val split ({val}) but no test split; decide in the task file: "
            f'splits = {{ test = "{val}" }} tests on it, splits = {{ val = "{val}" }} takes a fifth of train for test'
        )
