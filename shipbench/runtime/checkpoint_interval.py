"""Intervals that the environment sets."""

from __future__ import annotations

import os

from shipbench.errors import InputError

_CHECKPOINTS = "SHIPBENCH_CHECKPOINT_SECONDS"


def checkpoint_seconds() -> float:
    """Return the least time between two checkpoints of a run, in seconds; 0 asks for one after every epoch.

    Raises ``InputError`` if ``SHIPBENCH_CHECKPOINT_SECONDS`` is not such a number.
    """
    text = os.environ.get(_CHECKPOINTS) or "10"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise InputError(f"{_CHECKPOINTS}={text} is not a number of seconds of at least 0; set it to one, such as 10")
    return seconds
