"""TOML files that provide the options of a command."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import typer

from shipbench.errors import InputError, did_you_mean
from shipbench.runtime.files import read_toml
from shipbench.settings import flat_table, option_text

# Options that a file may give as a table of settings.
_TABLES = ("set", "grid", "sweep", "cluster")


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Use the values of a TOML file as defaults of the command's options; raise ``InputError`` if it is malformed."""
    if path is not None:
        options = [p for p in context.command.params if p.name != "config"]
        values = _with_epochs_apart(_config_values(path, options), path)
        context.default_map = values
        # Click prefers environment variables to defaults, but a file named on the command line outranks them.
        for option in (option for option in options if option.name in values):
            # The parser may read another command line afterwards.
            context.call_on_close(partial(setattr, option, "envvar", option.envvar))
            option.envvar = None
            if option.name == "cluster":
                _call(context, option, partial(_with_others, values["cluster"]))
        if {"settings", "epochs"} & values.keys():
            settings = _Settings(values.get("settings", []))
            for option in options:
                if option.name in ("settings", "epochs"):
                    _call(context, option, settings.merged if option.name == "settings" else settings.epochs)
    return path


def _with_epochs_apart(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the values of a file with ``epochs`` of its settings as the option that it is short for."""
    pairs = values.get("settings", [])
    epochs = [pair for pair in pairs if _key(pair) == "epochs"]
    if not epochs:
        return values
    if "epochs" in values:
        raise InputError(f"{path} gives epochs twice: as a key and in [set]; remove one")
    others = [pair for pair in pairs if pair not in epochs]
    return {**values, "settings": others, "epochs": epochs[-1].partition("=")[2]}


def _call(context: typer.Context, option: Any, callback: Callable[..., Any]) -> None:
    """Let an option call ``callback`` with its value on this command line."""
    context.call_on_close(partial(setattr, option, "callback", option.callback))
    option.callback = callback


class _Settings:
    """The settings of a file, given its ``pairs``, and of the command line, whose options come in any order.

    ``--epochs N`` is short for ``--set epochs=N``.
    """

    def __init__(self, pairs: list[str]) -> None:
        self._pairs, self._given, self._keys = pairs, list[str](), set[str]()
        self._merged: list[str] = []

    def merged(self, context: Any, option: Any, value: Sequence[str] | None) -> list[str]:
        """Return the pairs of both; those of the file whose keys the command line gives are left out."""
        self._given = list(value or ()) if is_given(context, option.name) else []
        return self._merge({_key(pair) for pair in self._given})

    def epochs(self, context: Any, option: Any, value: Any) -> Any:
        """Return the epochs; None instead of those of the file if the command line gives others with ``--set``."""
        if is_given(context, option.name):
            self._merge({"epochs"})
            return value
        # What the command line leaves out is processed last.
        return None if "epochs" in self._keys else value

    def _merge(self, keys: set[str]) -> list[str]:
        self._keys |= keys
        # In place, because the command has the list already if its options come in the other order.
        self._merged[:] = [*_others(self._pairs, self._keys), *self._given]
        return self._merged


def _with_others(pairs: list[str], context: Any, option: Any, given: Sequence[str]) -> list[str]:
    """Return the pairs of a file whose keys the command line does not give, then those that it gives."""
    return [*_others(pairs, {_key(pair) for pair in given}), *given]


def _others(pairs: Iterable[str], keys: Set[str]) -> list[str]:
    # A plain key is given for every method.
    return [pair for pair in pairs if keys.isdisjoint((_key(pair), _key(pair).rpartition(".")[2]))]


def is_given(context: Any, option: str) -> bool:
    """Return whether an option that is being processed comes from the command line."""
    # By name, because typer may bring a Click of its own.
    return context.get_parameter_source(option).name == "COMMANDLINE"


def _key(pair: str) -> str:
    return pair.partition("=")[0].strip()


def _config_values(path: Path, options: list[Any]) -> dict[str, Any]:
    by_name = {option.opts[-1].lstrip("-"): option for option in options}
    values: dict[str, Any] = {}
    for key, value in read_toml(path, "configuration file").items():
        if key not in by_name:
            raise InputError(f"unknown key {key!r} in {path}{did_you_mean(key, by_name)}; remove or rename it")
        if isinstance(value, dict) and key not in _TABLES:
            raise InputError(f"key {key!r} in {path} is a table; only [set], [grid], [sweep] and [cluster] may be one")
        values[str(by_name[key].name)] = _option(value, several=by_name[key].multiple)
    return values


def _option(value: Any, *, several: bool) -> Any:
    """Convert a TOML value to the text, or list of texts, that the command line would hold."""
    if isinstance(value, dict):
        return [f"{name}={option_text(setting)}" for name, setting in flat_table(value).items()]
    if several:
        return [option_text(item) for item in (value if isinstance(value, list) else [value])]
    return value if isinstance(value, bool) else option_text(value)
