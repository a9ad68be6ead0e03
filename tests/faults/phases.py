"""The phase that a command was in when it was killed: a number in a mapped file, which survives ``kill -9``."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from functools import partial, wraps
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

START_UP = "start-up of the command"
PREPARING = "preparing a run"
TRAINING = "training"
EVALUATION = "evaluation"
CHECKPOINT = "writing a checkpoint"
STORING = "storing a run"
BETWEEN = "between runs"
PHASES = (START_UP, PREPARING, TRAINING, EVALUATION, CHECKPOINT, STORING, BETWEEN)
_PLACES = {
    "shipbench.engine.supervisor:execute_plan": BETWEEN,
    "shipbench.engine.attempt:prepare_planned": PREPARING,
    "shipbench.runs.session:assemble": PREPARING,
    "shipbench.training.loop:Trainer._train": TRAINING,
    "shipbench.training.loop:_evaluate": EVALUATION,
    "shipbench.runs.checkpoints:Checkpoint.offer": CHECKPOINT,
    "shipbench.runs.session:store_run": STORING,
}


def keep_phase(file: Path) -> None:
    """Keep the current phase of this process in ``file`` from now on."""
    file.write_bytes(bytes(1))
    with file.open("r+b") as stream:
        mark = mmap.mmap(stream.fileno(), 1)
    for place, phase in _PLACES.items():
        wrap_function(place, partial(_marked, mark=mark, number=PHASES.index(phase)))


def wrap_function(place: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a function in this process by ``wrap(function)``; ``place`` is its module and its path there."""
    module, _, path = place.partition(":")
    owner_path, _, name = path.rpartition(".")
    owner: Any = import_module(module)
    owner = attrgetter(owner_path)(owner) if owner_path else owner
    setattr(owner, name, wrap(getattr(owner, name)))


def read_phase(file: Path) -> str:
    """Return the phase that a process is in, or was in when it died."""
    number = file.read_bytes() if file.exists() else b""
    return PHASES[number[0] if number else 0]


def _marked(function: Callable[..., Any], mark: mmap.mmap, number: int) -> Callable[..., Any]:
    @wraps(function)
    def marked(*arguments: Any, **options: Any) -> Any:
        before, mark[0] = mark[0], number
        try:
            return function(*arguments, **options)
        finally:
            mark[0] = before

    return marked
