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
# Columns that are not passed over if their values leave open which images are train, and those that are not passed over
# if they hold nothing but names of splits, without train.
_UNCLEAR = ("split", "set", "subset")
_UNCLEAR_NAMES = (*_UNCLEAR, "fold", "partition")
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

    A column named like one of splits whose values leave open which images are train, or say that none is, raises
    ``InputError``: test images would be trained on. If the task file has the key ``splits``, columns count of which it
    names a value that is no name of a split. The columns of the images and labels never count.
    """
    taken = [options.get(key) for key in ("image_column", "label_column")]
    distinct = {name: list(dict.fromkeys(values)) for name, values in columns.items() if name not in taken}
    roles = {name: {role_of(value) for value in values} for name, values in distinct.items()}
    divided = [name for name, found in roles.items() if "train" in found and len(found - {None}) > 1]
    whole = [name for name in divided if None not in roles[name]]
    unclear = [name for name, found in roles.items() if _is_unclear(name, found, len(distinct[name]))]
    if whole:
        return whole
    if wanted := [str(value) for chosen in table_option(options, "splits").values() for value in _as_list(chosen)]:
        candidates = [name for name in distinct if name in divided or name in unclear]
        return [name for name in candidates if _is_meant(distinct[name], None in roles[name], wanted)]
    if unclear:
        raise _unclear_column(unclear[0], distinct[unclear[0]], where)
    return []


def _is_unclear(name: str, roles: Collection[SplitRole | None], values: int) -> bool:
    """Return whether a column is named like one of splits, but its values leave open which images are train."""
    lower = name.lower()
    if None not in roles:
        return lower in _UNCLEAR_NAMES and "train" not in roles
    return (lower == "split" and values > 1) or (lower in _UNCLEAR and "train" in roles and len(roles) > 2)


def _is_meant(values: Sequence[str], has_stray: bool, wanted: Sequence[str]) -> bool:
    """Return whether ``splits`` names one of the values: one without a role, if the column has such values."""
    telling = [value for value in values if not has_stray or role_of(value) is None]
    return any(_match(value, telling) is not None for value in wanted)


def _unclear_column(name: str, values: Sequence[str], where: object) -> InputError:
    column = f"the column {name!r} of {where} looks like that of the split"
    say = "say in the task file what its values mean"
    stray = [value for value in values if role_of(value) is None]
    every = ", ".join(f'"{value}"' for value in values[:_LISTED]) + (", ..." if len(values) > _LISTED else "")
    whole = f"splits = {{ train = [{every}] }}"
    otherwise = f"or, if it divides nothing, {whole}"
    if stray:
        example = f'splits = {{ train = "...", test = "{stray[0]}" }}'
        held = ", ".join(map(repr, stray[:_LISTED]))
        return InputError(f"{column}, but holds {held}; {say}: {example}, {otherwise}")
    held = " and ".join(map(repr, values[:_LISTED]))
    if len({role_of(value) for value in values}) == 1:
        return InputError(
            f"{column}, but holds {held} alone and no train; if it divides nothing, say so in the task file: {whole}"
        )
    return InputError(f'{column}, but holds {held} and no train; {say}: splits = {{ train = "..." }}, {otherwise}')


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


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
