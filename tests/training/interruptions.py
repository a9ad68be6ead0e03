"""Runs that are interrupted, and what must be equal after they have been resumed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from shipbench import RunSpec, run
from shipbench.events import EpochDone, Event
from shipbench.results.loading import load_history, load_predictions, load_results
from shipbench.results.store import Store
from tests.conftest import TIMES


class PowerCutError(BaseException):
    """Stops a run at once: no handler of the program catches it."""


def interrupted(spec: RunSpec, results: Path, after: int) -> Path:
    """Start a run, interrupt it after the given epoch, and return its checkpoint."""

    def stop(event: Event, /) -> None:
        if isinstance(event, EpochDone) and event.epoch == after:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        run(spec, results=results, listener=stop)
    (checkpoint,) = (results / "checkpoints").iterdir()
    return checkpoint


def assert_same_results(a: Path, b: Path) -> None:
    one, two = load_results(a), load_results(b)
    pd.testing.assert_frame_equal(one.drop(columns=TIMES), two.drop(columns=TIMES))
    for load in (load_history, load_predictions):
        pd.testing.assert_frame_equal(load(a, one["run_id"]), load(b, one["run_id"]))
    for run_id in one["run_id"]:
        first, second = (Store(root).path("weights", run_id) for root in (a, b))
        assert first.exists() == second.exists()
        if first.exists():
            tensors = load_file(second)
            assert all(torch.equal(value, tensors[name]) for name, value in load_file(first).items())
