"""Typed settings: frozen dataclasses with bounds beside their fields, read from Python values or from text."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import operator
import types
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import cache
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from shipbench.errors import InputError, did_you_mean, unknown

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

Config = TypeVar("Config")
Choice = TypeVar("Choice", bound=str)
# No count comes near this, and every column and tensor that stores a setting can hold it.
_INT_LIMIT = 2**31
# What a number beyond a bound must be, by pydantic's type of error; any other error is a value of the wrong type.
_BOUNDS = {
    "greater_than": "above {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "below {lt:g}",
    "less_than_equal": "{le:g} or less",
    "multiple_of": "a multiple of {multiple_of:g}",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base class of settings that check themselves.

    Subclasses are frozen dataclasses whose fields all have defaults. A field is a number, a text, a truth value, one of
    several (``Literal``, or an enum of whole numbers or texts), None, or a tuple of such values; a bound stands beside
    its type, as in ``Annotated[int, Ge(1)]`` (annotated-types, or pydantic's ``Field``). Creating or replacing one
    converts every value to the type of its field and raises ``InputError`` for a value of another type, out of bounds,
    not finite, or a whole number of 2**31 or more. Numbers and arrays of numpy and torch count as the Python values
    they hold.
    """

    def __post_init__(self) -> None:
        """Convert and check every field."""
        for name, value in _typed_values(type(self), vars(self)).items():
            object.__setattr__(self, name, value)


def plain(value: Any) -> Any:
    """Return the Python value of a number or an array of numpy or torch; sequences become tuples of such values."""
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else value


def whole_number(name: str, value: object, least: int | None = None) -> int:
    """Return ``value`` as an int, also if it is an integer of numpy or torch.

    Raises ``InputError`` that names it for any other type, and for a number below ``least``.
    """
    number = plain(value)
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise InputError(f"{name} is {number!r}; it must be a whole number")
    number = operator.index(number)
    if least is not None and number < least:
        raise InputError(f"{name} is {number}; it must be {least} or more")
    return number


def parse_pairs(pairs: Iterable[str], option: str = "--set", example: str = "lr=0.001") -> dict[str, str]:
    """Read ``KEY=VALUE`` texts of an option; raise ``InputError`` for a text of another form or a repeated key."""
    values: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        key = key.strip()
        if not separator or not key or not value.strip():
            raise InputError(f"{option} {pair!r} is not KEY=VALUE, as in {option} {example}")
        if key in values:
            raise InputError(f"{option} gives {key!r} twice")
        values[key] = value.strip()
    return values


def comma_list(text: str) -> list[str]:
    """Return the items of a comma list in order, without the spaces around them, empty items and repeats."""
    return list(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))


def one_of(text: str, choices: Iterable[Choice], option: str, kind: str) -> Choice:
    """Return the choice that ``text`` names; raise ``InputError``, which names ``option`` and the ``kind`` of choice.

    A choice is a text, also one of a ``Literal``.
    """
    names = {str(choice): choice for choice in choices}
    if text not in names:
        raise unknown(kind, text, names, f"{option}: ")
    return names[text]


def flat_table(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested tables, as TOML has them, by keys that join the names with dots."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= flat_table(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def option_text(value: Any) -> str:
    """Return a value of TOML as the command line holds it: a list as a comma list."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def field_names(config: type[Any]) -> list[str]:
    """Return the names of a settings class's fields."""
    return [field.name for field in dataclasses.fields(config)]


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a field, or ``dataclasses.MISSING``."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def unusable_field(config: type[Any]) -> str:
    """Return the name of the first field of a type that no setting can have, or an empty string.

    Raises ``NameError`` for a type that cannot be found, such as one that is imported for type checkers alone.
    """
    hints = get_type_hints(config, include_extras=True)
    return next((name for name in field_names(config) if not _is_setting(hints[name])), "")


def _is_setting(annotation: Any) -> bool:
    return all(map(_holds_plain_values, _options(annotation)))


def _holds_plain_values(option: Any) -> bool:
    if get_origin(option) is Literal:
        return all(choice is None or isinstance(choice, (int, float, str)) for choice in get_args(option))
    if get_origin(option) is tuple:
        return all(item is ... or _is_setting(item) for item in get_args(option))
    return option in (int, float, bool, str, types.NoneType) or _is_enum(option)


def _is_enum(option: Any) -> bool:
    """Return whether a type is an enum whose members are whole numbers or texts, so that a record can hold them."""
    return isinstance(option, type) and issubclass(option, Enum) and issubclass(option, (int, str))


def refuse_unknown(keys: Iterable[str], names: list[str], where: str) -> None:
    """Raise ``InputError`` for the first key that is not among ``names``."""
    for key in keys:
        if key not in names:
            raise InputError(
                f"unknown setting {key!r} for {where}{did_you_mean(key, names)}; it has {', '.join(sorted(names))}"
            )


def configure(config: type[Config], values: Mapping[str, object]) -> Config:
    """Return ``config`` with ``values`` in place of its defaults, converted to the types of its fields.

    ``config`` is any dataclass. A value may be text as on the command line: ``none`` for None, numbers of a tuple
    separated by commas. Raises ``InputError`` for an unknown key and for a value that does not fit.
    """
    refuse_unknown(values, field_names(config), config.__name__)
    return config(**_typed_values(config, values))


def _typed_values(config: type[Any], values: Mapping[str, object]) -> dict[str, Any]:
    # mypy does not take a class for hashable.
    settings = _settings_of(cast("Any", config))
    return {key: settings[key].read(value) for key, value in values.items()}


@cache
def _settings_of(config: type[Any]) -> dict[str, _Setting]:
    # Imported here because it takes 80 ms, and listing methods and their defaults needs no checks.
    from pydantic import ConfigDict, TypeAdapter

    hints, finite = get_type_hints(config, include_extras=True), ConfigDict(allow_inf_nan=False)
    return {name: _Setting(name, hints[name], TypeAdapter(hints[name], config=finite)) for name in field_names(config)}


@dataclasses.dataclass(frozen=True)
class _Setting:
    """The name and type of a field, and the pydantic adapter that converts and checks its values."""

    name: str
    annotation: Any
    adapter: TypeAdapter[Any]

    def read(self, value: object) -> Any:
        """Return ``value`` as this setting's type; raise ``InputError`` if it does not fit."""
        from pydantic import ValidationError

        value, options = plain(value), _options(self.annotation)
        try:
            typed = self.adapter.validate_python(_from_text(value, options))
        except ValidationError as error:
            raise InputError(self._refusal(value, error.errors()[0])) from None
        if _is_stray_bool(value, options) or (isinstance(typed, int) and abs(typed) >= _INT_LIMIT):
            raise InputError(self._wrong_type(value))
        return typed

    def _refusal(self, value: object, error: ErrorDetails) -> str:
        if error["type"] not in _BOUNDS:
            return self._wrong_type(value)
        subject = "its values" if any(isinstance(step, int) for step in error["loc"]) else "it"
        return f"{self.name} is {value}; {subject} must be {_BOUNDS[error['type']].format(**error['ctx'])}"

    def _wrong_type(self, value: object) -> str:
        return f"{self.name}={value!r} is not {' or '.join(map(_describe, _options(self.annotation)))}"


def _options(annotation: Any) -> list[Any]:
    """Return the types that an annotation allows, without their bounds and other names; None comes last."""
    origin = get_origin(annotation)
    if origin in (Annotated, Final):
        return _options(get_args(annotation)[0])
    # What a NewType, or an alias of a ``type`` statement, is a name of.
    named = getattr(annotation, "__supertype__", getattr(annotation, "__value__", None))
    if named is not None:
        return _options(named)
    if origin in (Union, types.UnionType):
        options = [option for choice in get_args(annotation) for option in _options(choice)]
        return sorted(options, key=lambda option: option is types.NoneType)
    return [annotation]


def _from_text(value: object, options: list[Any]) -> object:
    """Return text as the command line means it where pydantic reads it in another way; pydantic does the rest."""
    if not isinstance(value, str):
        return value
    choices = [choice for option in options if get_origin(option) is Literal for choice in get_args(option)]
    if value.lower() == "none" and (types.NoneType in options or None in choices):
        return None
    tuples = [option for option in options if get_origin(option) is tuple]
    if tuples:
        return [_from_text(item.strip(), _items(tuples[0])) for item in value.strip("()[] ").split(",")]
    return next((choice for choice in choices if str(choice) == value), value)


def _items(option: Any) -> list[Any]:
    """Return the types of the first item of a tuple."""
    return _options(get_args(option)[0])


def _is_stray_bool(value: object, options: list[Any]) -> bool:
    """Return whether a truth value stands for a number, which pydantic would read as 0 or 1."""
    parts = value if isinstance(value, (list, tuple)) else (value,)
    kinds = [*options, *(kind for option in options if get_origin(option) is tuple for kind in _items(option))]
    return bool not in kinds and any(isinstance(part, bool) for part in parts)


def _describe(option: Any) -> str:
    if get_origin(option) is Literal:
        return "one of " + ", ".join(map(str, get_args(option)))
    if get_origin(option) is tuple:
        return _describe_tuple(option)
    if _is_enum(option):
        return "one of " + ", ".join(str(member.value) for member in option)
    names = {
        types.NoneType: "none",
        bool: "true or false",
        int: "a whole number below 2**31",
        float: "a number that is finite",
    }
    return names.get(option, "text")


def _describe_tuple(option: Any) -> str:
    items, kinds = get_args(option), _items(option)
    if ... not in items and kinds == [float]:
        return f"{len(items)} numbers, as in {','.join(['0.5'] * len(items))}"
    number = "" if ... in items else f"{len(items)} "
    return f"a list of {number}values, each {' or '.join(map(_describe, kinds))}"


def canonical_json(value: object) -> str:
    """Return the JSON text of ``value``, equal for equal values: keys sorted, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_sha256(value: object) -> str:
    """Return the SHA-256 of ``canonical_json``, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
