"""Plug-ins: what other packages register under entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

from shipbench.errors import InputError, one_line


def load_plug_in(point: EntryPoint, what: str) -> Any:
    """Return the object of an entry point; raise ``InputError``, which calls it ``what``, if it cannot be imported."""
    try:
        return point.load()
    except Exception as error:
        # The code of a plug-in may raise anything, from a missing package to a syntax error.
        raise InputError(f"{what} {point.name!r} ({point.value}) cannot be imported: {one_line(error)}") from error
