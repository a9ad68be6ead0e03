"""Find methods through the entry-point groups ``shipbench.methods`` and ``shipbench.method_families``."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from functools import cache, partial
from importlib.metadata import EntryPoint, version
from typing import Any

from shipbench.errors import InputError, ShipbenchError, check_all, did_you_mean, one_line
from shipbench.methods.checks import refuse_class, refuse_description
from shipbench.methods.interface import Method, MethodFamily
from shipbench.runtime.plug_ins import find_plug_in, load_plug_in, make_plug_in, registered
from shipbench.settings import comma_list

GROUP = "shipbench.methods"
FAMILIES = "shipbench.method_families"
# What prompt-tuning papers compare.
MAIN_METHODS = ("full", "linear", "ship", "vpt-deep", "vpt-shallow")


@cache
def _families() -> dict[str, MethodFamily]:
    return {name: _family(name) for name in registered(FAMILIES)}


class _Unusable(MethodFamily):
    """A family that cannot be used; only commands that name one of its methods fail."""

    def __init__(self, reason: InputError) -> None:
        self.reason = reason

    def names(self) -> Sequence[str]:
        return ()

    def method(self, name: str) -> Method:
        raise self.reason


def _family(name: str) -> MethodFamily:
    try:
        point: Any = find_plug_in(FAMILIES, name, "family of methods")
        family: MethodFamily = make_plug_in(point, "the family of methods")
    except InputError as error:
        return _Unusable(error)
    return family


def list_methods() -> list[str]:
    """Return the names of all installed methods, sorted."""
    return sorted([*registered(GROUP), *(name for family in _families().values() for name in family.names())])


def registered_methods() -> list[str]:
    """Return the names of the methods that are registered one by one, sorted: all but those of families."""
    return list(registered(GROUP))


def get_method(name: str) -> Method:
    """Return the method called ``name``.

    Raises ``InputError`` if no such method is installed, if several packages have one, if it cannot be imported, if its
    entry point is not a ``Method`` of that name with usable settings and switches, or if its family refuses it.
    """
    if not isinstance(name, str):
        raise InputError(f"method is {name!r:.60}; give the name of a method, as in 'ship'")
    point = find_plug_in(GROUP, name, "method")
    if point is not None:
        return _load(point)
    prefix, hyphen, _ = name.partition("-")
    if hyphen and prefix in _families():
        return _families()[prefix].method(name)
    raise InputError(f"unknown method {name!r}{did_you_mean(name, list_methods())}; see 'shipbench list methods'")


def package_of(name: str) -> str:
    """Return the package that registers the method ``name`` and its version, as in ``cosine-probe 0.1.0``.

    Empty for the methods of shipbench itself, and for one that no installed package registers.
    """
    points = registered(GROUP).get(name) or registered(FAMILIES).get(name.partition("-")[0]) or ()
    packages = [point.dist for point in points if point.dist is not None and point.dist.name != "shipbench"]
    return f"{packages[0].name} {packages[0].version}" if packages else ""


def releases_of(name: str) -> dict[str, str]:
    """Return the releases of the packages that compute the method ``name`` beside shipbench, by package.

    These are the package that registers it and the library of its family, if any.
    """
    package, family = package_of(name), _families().get(name.partition("-")[0])
    library = family.library if family is not None and name not in registered(GROUP) else ""
    return dict([package.rsplit(" ", 1)] if package else []) | ({library: version(library)} if library else {})


def find_method(name: str) -> Method | None:
    """Return the method called ``name``, or None if it is not installed or cannot be used here."""
    try:
        return get_method(name)
    except InputError:
        return None


def _load(point: EntryPoint) -> Method:
    where = f"method {point.name!r} ({point.value})"
    loaded = load_plug_in(point, "method")
    refuse_class(loaded, point.name, where)
    _refuse_description_of(loaded, where)
    return loaded()


@cache
def _refuse_description_of(loaded: type[Method], where: str) -> None:
    """Raise ``InputError`` as ``refuse_description`` does; a report asks for every method a thousand times."""
    try:
        refuse_description(loaded(), where)
    except ShipbenchError:
        raise
    except Exception as error:
        # The class of a plug-in may raise anything, in its constructor or in a property.
        raise InputError(f"{where} cannot be made: {one_line(error)}") from error


def method_names(text: str) -> list[str]:
    """Return the names of the methods in a comma list of names, sets and patterns.

    The sets are ``all``, the five methods of prompt-tuning papers, and ``zoo``, every installed method. A pattern has
    a ``*``, as in ``peft-*``, and may match nothing. Raises ``InputError`` for the name of no method.
    """
    return [name for part in comma_list(text) for name in _names(part)]


def _names(part: str) -> Sequence[str]:
    if part == "all":
        return MAIN_METHODS
    # Listing all methods reads the sources of other libraries.
    if part == "zoo" or "*" in part:
        return fnmatch.filter(list_methods(), "*" if part == "zoo" else part)
    # A registered method that cannot be used may be left out of a set.
    return [part if part in registered(GROUP) else get_method(part).name]


def parse_methods(text: str, exclude: str = "") -> list[Method]:
    """Return the methods in a list as of ``method_names``, in the order given and without repeats.

    ``exclude`` is such a list of methods to leave out. Raises one ``InputError`` for all methods that cannot be used
    and all patterns in ``text`` that match nothing, and one if no method is left.
    """
    parts, excluded = comma_list(text), set(method_names(exclude))
    if not parts:
        raise InputError("--method is empty; name one, as in --method ship, or five of them with --method all")
    named = [name for names in check_all(partial(_some_names, part) for part in parts) for name in names]
    left = [name for name in dict.fromkeys(named) if name not in excluded]
    if not left:
        raise InputError(f"--exclude {exclude} leaves none of the methods {text}")
    return check_all(partial(get_method, name) for name in left)


def _some_names(part: str) -> Sequence[str]:
    names = _names(part)
    if not names:
        raise InputError(f"no method is called {part!r}; see 'shipbench list methods'")
    return names
