"""Planned runs that mean the same on another machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from shipbench.backbones import RANDOM
from shipbench.hardware.precision import precision_elsewhere
from shipbench.planning.plan import PlannedRun
from shipbench.spec import RunSpec


def portable(run: PlannedRun) -> PlannedRun:
    """Return a run with absolute paths and with the precision it was planned with."""
    spec = run.spec
    precision: Any = precision_elsewhere(spec.device, spec.precision)
    return replace(run, spec=replace(spec, data=_absolute(spec.data), checkpoint=_weights(spec), precision=precision))


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()


def _weights(spec: RunSpec) -> str | None:
    checkpoint = spec.checkpoint
    return checkpoint if checkpoint in (None, RANDOM) else str(Path(checkpoint).resolve())
