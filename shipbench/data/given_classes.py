"""The names of the classes that a task file gives, while the images of its source are listed.

Formats refuse labels that look like no classes. Those that the task file names are classes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_given: ContextVar[frozenset[str]] = ContextVar("given_classes", default=frozenset())


@contextmanager
def classes_given(names: Collection[str]) -> Iterator[None]:
    """Within the context, ``names`` are the classes that the task file gives."""
    token = _given.set(frozenset(names))
    try:
        yield
    finally:
        _given.reset(token)


def given_names() -> frozenset[str]:
    """Return the names of the classes that the task file gives."""
    return _given.get()
