"""What a person sees while work goes on: a rich display on a terminal, plain lines elsewhere.

Everything here goes to standard error; results go to standard output.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
# Names of files, runs and variants are shown as they are: [no-hierarchy] is no colour, and :x: no picture.
_LITERAL: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}


def err_console() -> Console:
    """Return a console on the present standard error."""
    return Console(file=sys.stderr, soft_wrap=True, **_LITERAL)


def out_console() -> Console:
    """Return a console on standard output, wide enough for whole rows where it is not a terminal."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200, **_LITERAL)


def say(message: str) -> None:
    """Print one plain line on standard error."""
    err_console().print(message)


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Iterate with a progress bar on a terminal, or one line at the start elsewhere."""
    console = err_console()
    if not console.is_terminal:
        say(f"{description} ({total})")
        yield from items
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(items, total=total, description=description)
