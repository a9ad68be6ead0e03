"""The configuration file that can stand in for options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from shipbench.errors import InputError, did_you_mean

if TYPE_CHECKING:
    pass


# Options that a configuration file may give as a table of settings.
_TABLES = ("set", "grid")


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Let a TOML file give the options that the command line does not."""
    if path is not None:
        options = [p for p in context.command.params if p.name != "config"]
        values = _config_values(path, options)
        context.default_map = values
        # The environment, which click asks first, is further away than a file that was named on the line.
        for option in (option for option in options if option.name in values):
            option.envvar = None
    return path


def _config_values(path: Path, options: list[Any]) -> dict[str, Any]:
    known = {option.opts[-1].lstrip("-"): option for option in options}
    values: dict[str, Any] = {}
    for key, value in _read_toml(path).items():
        if key not in known:
            raise InputError(f"unknown key {key!r} in {path}{did_you_mean(key, list(known))}")
        if isinstance(value, dict) and key not in _TABLES:
            raise InputError(f"key {key!r} in {path} is a table; only [set] and [grid] may be one")
        values[str(known[key].name)] = _option(value, several=known[key].multiple)
    return values


def _option(value: Any, *, several: bool) -> Any:
    """Return a TOML value as the command line would give it."""
    if isinstance(value, dict):
        return [f"{name}={_plain(setting)}" for name, setting in _flat(value).items()]
    if several:
        return [_plain(item) for item in (value if isinstance(value, list) else [value])]
    return value if isinstance(value, bool) else _plain(value)


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"configuration file {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"configuration file {path} is not TOML: {error}") from error
