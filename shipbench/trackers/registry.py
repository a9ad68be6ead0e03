"""Find trackers through the entry-point group ``shipbench.trackers``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shipbench.errors import InputError, ShipbenchError, one_line, unknown
from shipbench.runtime.plug_ins import find_plug_in, load_plug_in, missing_library, registered
from shipbench.settings import comma_list
from shipbench.trackers.interface import Tracker, TrackerOptions

GROUP = "shipbench.trackers"


def list_trackers() -> list[str]:
    """Return the names of all trackers, sorted; the library of a tracker may be missing."""
    return list(registered(GROUP))


def make_trackers(text: str, options: TrackerOptions) -> dict[str, Tracker]:
    """Return a new tracker for each name of a comma list, after its ``check``.

    Raises ``InputError`` for an empty list, an unknown or contested name, and a tracker that cannot be used.
    """
    names = comma_list(text)
    if not names:
        raise InputError(f"--track is empty; name one or more of {', '.join(list_trackers())}")
    trackers = {name: _load(name, options) for name in names}
    for name, tracker in trackers.items():
        with _refusing(name):
            tracker.check()
    return trackers


def _load(name: str, options: TrackerOptions) -> Tracker:
    point = find_plug_in(GROUP, name, "tracker")
    if point is None:
        raise unknown("tracker", name, list_trackers())
    make = load_plug_in(point, "tracker")
    with _refusing(name):
        tracker: Tracker = make(options)
    return tracker


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Turn any error of a tracker in the block into an ``InputError`` that names it."""
    try:
        yield
    except ShipbenchError:
        raise
    # Libraries raise errors of their own, and a broken one raises any.
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error, 200)}"
        raise InputError(f"--track {name} cannot be used ({reason}); leave it out, or repair the tracker") from error


def require_library(module: str, tracker: str) -> None:
    """Raise ``InputError`` if ``module`` is not installed; it names the extra of the same name that installs it."""
    if missing_library(module):
        raise InputError(
            f"--track {tracker} needs a package that is not installed; run: pip install 'shipbench[{tracker}]'"
        )
