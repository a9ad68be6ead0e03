"""Reading the keys of a task file that belong to a format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shipbench.errors import InputError, did_you_mean
from shipbench.runtime.files import expanded


def require_known(options: Mapping[str, Any], known: tuple[str, ...], kind: str) -> None:
    """Raise ``InputError`` if the task file has a key that sources of ``kind`` do not read."""
    for key in options:
        if key not in known:
            hint = did_you_mean(key, list(known))
            raise InputError(f"{kind} sources read no key {key!r} of the task file{hint}; they read {', '.join(known)}")


def text_option(options: Mapping[str, Any], key: str) -> str | None:
    """Return the text under ``key``, or ``None`` if the task file has no such key.

    Raises ``InputError`` if the value is not a non-empty string.
    """
    value = options.get(key)
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise InputError(f'{key} = {value!r} in the task file is not text; write {key} = "..."')
    return value


def choice_option(options: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> str | None:
    """Return the text under ``key`` if it is one of ``choices``; raise ``InputError`` for any other value."""
    value = text_option(options, key)
    if value is not None and value not in choices:
        raise InputError(f"{key} = {value!r} in the task file is unknown; choose {' or '.join(map(repr, choices))}")
    return value


def switch_option(options: Mapping[str, Any], key: str) -> bool:
    """Return the boolean under ``key``, false by default; raise ``InputError`` if it is not a boolean."""
    value = options.get(key, False)
    if not isinstance(value, bool):
        raise InputError(f"{key} = {value!r} in the task file is not a switch; write true or false")
    return value


def table_option(options: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the table under ``key``, empty by default; raise ``InputError`` if it is not a table."""
    value = options.get(key, {})
    if not isinstance(value, Mapping):
        raise InputError(f"{key} = {value!r} in the task file is not a table; write {key} = {{ name = value }}")
    return value


def divided(location: str, base: Path) -> tuple[str, str | None]:
    """Divide ``LOCATION:PART`` at its last colon; the part is None without one.

    A path that exists may contain a colon itself, and a letter before one is a drive of Windows.
    """
    name, _, part = location.rpartition(":")
    if len(name) < 2 or place(location, base).exists():
        return location, None
    return name, part.strip() or None


def with_images(options: Mapping[str, Any], images: str | None) -> Mapping[str, Any]:
    """Return the options with the folder of the images that a location names, if it names one.

    Raises ``InputError`` if the key ``images`` names one too.
    """
    if images is None:
        return options
    if "images" in options:
        raise InputError("the source and the key 'images' both name the folder of the images; give one of them")
    return {**options, "images": images}


def place(location: str, base: Path) -> Path:
    """Return the absolute path of a location that is relative to ``base``; ``~`` is the user's home."""
    return (base / expanded(location)).absolute()
