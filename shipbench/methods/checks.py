"""What a registered class must have before its method is used; a plug-in may have mistakes of every kind."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from shipbench.errors import InputError
from shipbench.methods.interface import Method
from shipbench.recipe import Recipe
from shipbench.settings import default_of, field_names, unusable_field

# What names cannot hold: the command line reads METHOD.KEY=VALUE, lists and patterns; records join switches by +.
_IN_METHODS, _IN_SWITCHES = ". , * =", ", +"
_SETS = ("all", "zoo")


def refuse_class(loaded: Any, name: str, where: str) -> None:
    """Raise ``InputError`` unless ``loaded`` is a class that can make the method ``name``; ``where`` names it."""
    if not (inspect.isclass(loaded) and issubclass(loaded, Method)):
        raise InputError(f"{where} is not a method; derive its class from shipbench.methods.Method")
    if inspect.isabstract(loaded):
        raise InputError(f"{where} cannot build a model; implement {', '.join(sorted(loaded.__abstractmethods__))}")
    if loaded.name != name:
        raise InputError(f"{where} has the name {loaded.name!r}; set it to {name!r}")
    if not _is_name(name, _IN_METHODS) or name in _SETS:
        raise InputError(
            f"{where} cannot be named on the command line; call it neither all nor zoo, without spaces and "
            f"{_IN_METHODS}"
        )


def refuse_description(method: Method, where: str) -> None:
    """Raise ``InputError`` for settings that no run can be made of, and for switches that change none of them."""
    settings = method.settings
    if not (inspect.isclass(settings) and dataclasses.is_dataclass(settings)):
        raise InputError(f"{where} has settings that are no dataclass; derive them from shipbench.settings.Settings")
    required = [f.name for f in dataclasses.fields(settings) if default_of(f) is dataclasses.MISSING]
    if required:
        raise InputError(f"{where} has a setting without a default, {required[0]!r}; give it one")
    _refuse_types(settings, where)
    taken = sorted(set(field_names(settings)) & set(field_names(Recipe)))
    if taken:
        raise InputError(f"{where} has a setting called {taken[0]!r}, as the recipe has; give it another name")
    defaults = {f.name: default_of(f) for f in dataclasses.fields(settings)}
    for switch, changes in method.all_switches.items():
        if not _is_name(switch, _IN_SWITCHES):
            raise InputError(f"{where} has a switch {switch!r}; call it something without spaces and {_IN_SWITCHES}")
        unknown = sorted(set(changes) - set(defaults))
        if unknown:
            raise InputError(
                f"{where} has a switch {switch!r} that changes {unknown[0]!r}, which is not a setting of it"
            )
        if changes.items() <= defaults.items():
            raise InputError(f"{where} has a switch {switch!r} that changes nothing: its values are the defaults")


def _refuse_types(settings: type[Any], where: str) -> None:
    try:
        name = unusable_field(settings)
    except NameError as error:
        # Annotations may be texts, whose names only type checkers import.
        raise InputError(
            f"{where} has a setting whose type cannot be found: {error}; import it at the top of the module"
        ) from error
    if name:
        raise InputError(
            f"{where} has a setting {name!r} that is not a plain value; use int, float, bool, str, Literal, an enum of "
            "texts, None, a tuple of these, or several settings"
        )


def _is_name(text: str, reserved: str) -> bool:
    return bool(text) and not any(character in reserved or character.isspace() for character in text)
