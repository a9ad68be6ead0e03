"""Plug-ins: what other packages register under entry points."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, Protocol, runtime_checkable

from shipbench.errors import InputError, ShipbenchError, one_line


# Reading the metadata of every installed package takes as long as looking up twenty records.
@cache
def _points(group: str, path: tuple[str, ...]) -> Sequence[EntryPoint]:
    """Return the entry points of a group in the packages on ``path``, the present ``sys.path``."""
    return tuple(entry_points(group=group))


def registered(group: str) -> Mapping[str, Sequence[EntryPoint]]:
    """Return the entry points of a group by name: one for each, or several where packages differ."""
    points: dict[str, dict[str, EntryPoint]] = {}
    for point in _points(group, tuple(sys.path)):
        points.setdefault(point.name, {})[point.value] = point
    return {name: [values[value] for value in sorted(values)] for name, values in sorted(points.items())}


def find_plug_in(group: str, name: str, what: str) -> EntryPoint | None:
    """Return the entry point called ``name`` in a group, or None if there is none.

    Raises ``InputError``, which calls it ``what``, if several packages register different objects under the name.
    """
    points = registered(group).get(name, ())
    if len(points) > 1:
        values = ", ".join(point.value for point in points)
        raise InputError(f"several packages have the {what} {name!r} ({values}); rename or uninstall one")
    return points[0] if points else None


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


@runtime_checkable
class MayBeUnusable(Protocol):
    """A plug-in that knows whether this machine has what it needs."""

    @staticmethod
    def why_unusable() -> str:
        """Return what this machine lacks, or an empty string; must be fast and not use the network."""
        ...


def why_unusable(point: EntryPoint) -> str:
    """Return why the plug-in of an entry point cannot be used on this machine; empty if it can be used."""
    try:
        plug_in = point.load()
        return plug_in.why_unusable() if isinstance(plug_in, MayBeUnusable) else ""
    except Exception as error:
        return one_line(error)


def missing_library(module: str) -> str:
    """Return that ``module`` is not installed, or an empty string."""
    spec = find_spec(module)
    # A folder of that name in the working folder, such as the one that wandb writes, is no library.
    return f"{module} is not installed" if spec is None or spec.origin is None else ""


def extra_of(point: EntryPoint) -> str | None:
    """Return what pip installs for a plug-in: the extra of the same name of its package, or None without one."""
    extras = (point.dist and point.dist.metadata.get_all("Provides-Extra")) or []
    return f"{point.dist.name}[{point.name}]" if point.dist and point.name in extras else None
