"""Figures through matplotlib that look the same for every user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast


@contextmanager
def default_style(**changes: Any) -> Iterator[None]:
    """Let matplotlib draw with its default settings and ``changes`` to them, whatever a matplotlibrc says."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(cast(Any, changes))
        yield
