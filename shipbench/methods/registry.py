"""Finding methods through the entry-point group ``shipbench.methods``."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from shipbench.errors import InputError, did_you_mean
from shipbench.methods.interface import Method

GROUP = "shipbench.methods"


# Reading the metadata of every installed package takes as long as looking up twenty records.
@cache
def _found() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def list_methods() -> list[str]:
    """Return the names of all installed methods, sorted."""
    return sorted(_found())


def get_method(name: str) -> Method:
    """Return the method called ``name``; raises ``InputError`` if none is, or if it cannot be imported."""
    found = _found()
    if name not in found:
        raise InputError(f"unknown method {name!r}{did_you_mean(name, list(found))}; see 'shipbench list methods'")
    try:
        return found[name].load()()
    except ImportError as error:
        raise InputError(f"method {name!r} ({found[name].value}) cannot be imported: {error}") from error


def parse_methods(text: str) -> list[Method]:
    """Read a comma list of method names, or ``all``, in the order given and without repeats."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise InputError("--method is empty; name one, as in --method ship, or all of them with --method all")
    wanted = [name for part in names for name in (list_methods() if part == "all" else [part])]
    return [get_method(name) for name in dict.fromkeys(wanted)]
