"""Turning ``KEY=VALUE`` into typed fields of a frozen dataclass, and refusing what does not fit."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from shipbench.errors import InputError, did_you_mean

Config = TypeVar("Config")
# No count of anything comes near it, and every column and tensor that a setting may end in can hold less.
_INT_LIMIT = 2**31


def parse_pairs(pairs: Iterable[str]) -> dict[str, str]:
    """Read ``KEY=VALUE`` texts; a key may be given once."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        key = key.strip()
        if not separator or not key or not value.strip():
            raise InputError(f"--set {pair!r} is not KEY=VALUE, as in --set lr=0.001")
        if key in found:
            raise InputError(f"--set gives {key!r} twice")
        found[key] = value.strip()
    return found


def field_names(config: type[Any]) -> list[str]:
    """Return the names of a settings class's fields."""
    return [field.name for field in dataclasses.fields(config)]


def refuse_unknown(keys: Iterable[str], known: list[str], where: str) -> None:
    """Raise ``InputError`` for the first key that is not known."""
    for key in keys:
        if key not in known:
            raise InputError(
                f"unknown setting {key!r} for {where}{did_you_mean(key, known)}; it has {', '.join(sorted(known))}"
            )


@cache
def _hints(config: type[Any]) -> dict[str, Any]:
    """Return the types of a settings class's fields, which are texts until they are evaluated."""
    return get_type_hints(config)


def configure(config: type[Config], values: Mapping[str, object]) -> Config:
    """Return ``config`` with ``values`` (typed, or text as on the command line) in place of its defaults."""
    # mypy does not know that a class can be hashed.
    hints = _hints(cast("Any", config))
    refuse_unknown(values, field_names(config), config.__name__)
    return config(**{key: convert(key, hints[key], value) for key, value in values.items()})


def convert(key: str, annotation: Any, value: object) -> Any:
    """Return ``value`` as ``annotation`` wants it; raises ``InputError`` that names the key if it cannot be."""
    try:
        return _convert(annotation, value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{key}={value!r} is not {_describe(annotation)}") from None


def _convert(annotation: Any, value: object) -> Any:
    origin = get_origin(annotation)
    if origin is Literal:
        if value not in get_args(annotation):
            raise ValueError
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(annotation), value)
    if origin is tuple:
        return _convert_tuple(get_args(annotation), value)
    if annotation is bool:
        return _convert_bool(value)
    if annotation in (int, float):
        return _convert_number(annotation, value)
    if not isinstance(value, str):
        raise TypeError
    return value


def _convert_union(choices: tuple[Any, ...], value: object) -> Any:
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    return _convert(next(choice for choice in choices if choice is not type(None)), value)


def _convert_tuple(kinds: tuple[Any, ...], value: object) -> tuple[Any, ...]:
    parts = value.strip("()[] ").split(",") if isinstance(value, str) else list(value)  # type: ignore[call-overload]
    if len(parts) != len(kinds):
        raise ValueError
    return tuple(_convert(kind, part) for kind, part in zip(kinds, parts, strict=True))


def _convert_bool(value: object) -> bool:
    named = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    return named[str(value).lower()] if str(value).lower() in named else _refuse()


def _refuse() -> bool:
    raise ValueError


def _convert_number(kind: type[int] | type[float], value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError
    number = float(value)
    if not math.isfinite(number) or (kind is int and abs(number) >= _INT_LIMIT):
        raise ValueError
    if kind is int:
        if isinstance(value, float) and not value.is_integer():
            raise ValueError
        return int(value)
    return number


def _describe(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(annotation)))
    if origin in (Union, types.UnionType):
        kinds = [_describe(choice) for choice in get_args(annotation) if choice is not type(None)]
        return " or ".join([*kinds, "none"])
    if origin is tuple:
        return f"{len(get_args(annotation))} numbers, as in 0.5,0.5,0.5"
    return {bool: "true or false", int: "a whole number below 2**31", float: "a number that is finite"}.get(
        annotation, "text"
    )


def canonical_json(value: object) -> str:
    """Return JSON that is the same for equal values: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
