"""Find methods through the entry-point groups ``shipbench.methods`` and ``shipbench.method_families``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from shipbench.errors import InputError, did_you_mean
from shipbench.methods.interface import Method, MethodFamily

GROUP = "shipbench.methods"
FAMILIES = "shipbench.method_families"
# What prompt-tuning papers compare.
MAIN_METHODS = ("full", "linear", "ship", "vpt-deep", "vpt-shallow")


# Reading the metadata of every installed package takes as long as looking up twenty records.
@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


@cache
def _families() -> dict[str, MethodFamily]:
    return {point.name: point.load()() for point in entry_points(group=FAMILIES)}


def list_methods() -> list[str]:
    """Return the names of all installed methods, sorted."""
    return sorted([*_entry_points(), *(name for family in _families().values() for name in family.names())])


def registered_methods() -> list[str]:
    """Return the names of the methods that are registered one by one, sorted: all but those of families."""
    return sorted(_entry_points())


def get_method(name: str) -> Method:
    """Return the method called ``name``.

    Raises ``InputError`` if no such method is installed, if it cannot be imported, if its entry point is not a
    ``Method`` of that name, or if its family refuses it.
    """
    points = _entry_points()
    if name in points:
        return _load(points[name])
    prefix, hyphen, _ = name.partition("-")
    if hyphen and prefix in _families():
        return _families()[prefix].method(name)
    raise InputError(f"unknown method {name!r}{did_you_mean(name, list_methods())}; see 'shipbench list methods'")


def find_method(name: str) -> Method | None:
    """Return the method called ``name``, or None if it is not installed or cannot be used here."""
    try:
        return get_method(name)
    except InputError:
        return None


def _load(point: EntryPoint) -> Method:
    where = f"method {point.name!r} ({point.value})"
    try:
        method = point.load()
    except (ImportError, AttributeError) as error:
        raise InputError(f"{where} cannot be imported: {error}") from error
    if not (inspect.isclass(method) and issubclass(method, Method)):
        raise InputError(f"{where} is not a method; derive its class from shipbench.methods.Method")
    if inspect.isabstract(method):
        raise InputError(f"{where} cannot build a model; implement {', '.join(sorted(method.__abstractmethods__))}")
    if method.name != point.name:
        raise InputError(f"{where} has the name {method.name!r}; set it to {point.name!r}")
    return method()


def parse_methods(text: str) -> list[Method]:
    """Read a comma list of method names and sets, in the order given and without repeats.

    The sets are ``all``, the five methods of prompt-tuning papers, and ``zoo``, every installed method.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise InputError("--method is empty; name one, as in --method ship, or five of them with --method all")
    # Listing all methods reads the sources of other libraries.
    sets: dict[str, Callable[[], Sequence[str]]] = {"all": lambda: MAIN_METHODS, "zoo": list_methods}
    expanded = [name for part in names for name in (sets[part]() if part in sets else [part])]
    return [get_method(name) for name in dict.fromkeys(expanded)]
