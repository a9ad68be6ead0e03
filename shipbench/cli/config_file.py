"""TOML files that provide the options of a command."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import typer

from shipbench.errors import InputError, did_you_mean
from shipbench.runtime.files import read_toml
from shipbench.settings import flat_table

# Options that a file may give as a table of settings.
_TABLES = ("set", "grid", "sweep", "cluster")
# Those of them that are settings by key, of which the command line replaces single ones.
_BY_KEY = ("settings", "cluster")


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Use the values of a TOML file as defaults of the command's options; raise ``InputError`` if it is malformed."""
    if path is not None:
        options = [p for p in context.command.params if p.name != "config"]
        values = _config_values(path, options)
        context.default_map = values
        # Click prefers environment variables to defaults, but a file named on the command line outranks them.
        for option in (option for option in options if option.name in values):
            # The parser may read another command line afterwards.
            context.call_on_close(partial(setattr, option, "envvar", option.envvar))
            option.envvar = None
            if option.name in _BY_KEY:
                context.call_on_close(partial(setattr, option, "callback", option.callback))
                option.callback = partial(_with_others, values[option.name])
    return path


def _with_others(pairs: list[str], _context: typer.Context, _option: Any, given: Sequence[str]) -> list[str]:
    """Return the pairs of a file whose keys the command line does not give, then those that it gives."""
    keys = {_key(pair) for pair in given}
    # A plain key is given for every method.
    kept = (pair for pair in pairs if not {_key(pair), _key(pair).rpartition(".")[2]} & keys)
    return [*kept, *given]


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
        return [f"{name}={_plain(setting)}" for name, setting in flat_table(value).items()]
    if several:
        return [_plain(item) for item in (value if isinstance(value, list) else [value])]
    return value if isinstance(value, bool) else _plain(value)


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
