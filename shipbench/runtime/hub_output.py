"""What the libraries of the Hugging Face hub print by themselves: progress bars, and warnings of each retry."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module

from shipbench.runtime.console import is_silent


@contextmanager
def as_silent_as_console(*libraries: str) -> Iterator[None]:
    """Let ``libraries`` draw no bars and log errors alone within the block, if lines are discarded.

    ``libraries`` are names of imported packages, ``huggingface_hub`` or ``datasets``. Their settings belong to the
    process, so blocks of several threads must not overlap.
    """
    with ExitStack() as stack:
        for library in libraries if is_silent() else ():
            stack.enter_context(_silent(library))
        yield


@contextmanager
def _silent(library: str) -> Iterator[None]:
    logger, bars = logging.getLogger(library), import_module(f"{library}.utils")
    level, drawn = logger.level, not bars.are_progress_bars_disabled()
    logger.setLevel(max(level, logging.ERROR))
    with warnings.catch_warnings():
        # It warns if the environment asks for bars, which has priority.
        warnings.simplefilter("ignore")
        bars.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if drawn:
            bars.enable_progress_bars()
