"""Plug-ins: what other packages register under entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

from shipbench.errors import InputError, ShipbenchError, one_line


def load_plug_in(point: EntryPoint, what: str) -> Any:
    """Return the object of an entry point; raise ``InputError``, which calls it ``what``, if it cannot be imported."""
    try:
        return point.load()
    except Exception as error:
        # The code of a plug-in may raise anything, from a missing package to a syntax error.
        raise InputError(f"{what} {point.name!r} ({point.value}) cannot be imported: {one_line(error)}") from error


def make_plug_in(point: EntryPoint, what: str, *arguments: Any) -> Any:
    """Call the object of an entry point with ``arguments``; raise ``InputError`` if it cannot be imported or called.

    Errors that it raises on purpose, as a ``ShipbenchError``, pass.
    """
    make = load_plug_in(point, what)
    try:
        return make(*arguments)
    except ShipbenchError:
        raise
    except Exception as error:
        # A constructor may import the library that it needs.
        raise InputError(f"{what} {point.name!r} ({point.value}) cannot be made: {one_line(error)}") from error
