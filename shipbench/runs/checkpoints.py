"""Where an unfinished run got to, on disk: one safetensors file, replaced atomically, removed when the run is over.

A checkpoint is used only by the same run (its id is in the file), under the same code, torch and kind of device, and
only if the hash over everything in it is right. Nothing in it is ever executed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from shipbench.backbones.state_dicts import weights_sha256
from shipbench.errors import InputError, one_line
from shipbench.runtime.files import atomic_path
from shipbench.runtime.version import VERSION, git_commit
from shipbench.training.history import EpochReport, Evaluation
from shipbench.training.snapshot import Snapshot

FORMAT = "shipbench-checkpoint-1"
_SECONDS = "SHIPBENCH_CHECKPOINT_SECONDS"
# Writing takes at most about one part in so many of the time.
_SHARE = 20


@dataclass(frozen=True)
class Progress:
    """A snapshot, and the ``facts`` of the model that it belongs to (``Built.facts``)."""

    snapshot: Snapshot
    facts: Mapping[str, Any]


class Checkpoint:
    """The checkpoint file of one run."""

    def __init__(self, path: Path, run_id: str, device: torch.device, say: Callable[[str], None]) -> None:
        self.path = path
        self.say = say
        self.identity = {
            "format": FORMAT,
            "run_id": run_id,
            "shipbench": VERSION,
            "commit": git_commit(),
            "torch": version("torch"),
            "device": device.type,
        }
        self._pause = _seconds()
        self._last = time.monotonic()
        self._works = True

    def read(self) -> Progress | None:
        """Return where the run got to, or None if there is nothing that can be used, which is then said."""
        if not self.path.exists():
            return None
        try:
            progress = self._parse(*_load(self.path))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.say(f"the checkpoint of this run cannot be used ({one_line(error)}); the run starts anew")
            return None
        done = progress.snapshot.epochs
        self.say(f"goes on after epoch {len(done)} of {done[-1].epochs}, from its checkpoint")
        return progress

    def offer(self, take: Callable[[], Snapshot], facts: Mapping[str, Any]) -> None:
        """Write a checkpoint if the last one is long enough ago; a run that cannot write any goes on without."""
        started = time.monotonic()
        if not self._works or started - self._last < self._pause:
            return
        try:
            self._write(take(), facts)
        except (SafetensorError, OSError) as error:
            self._works = False
            self.say(f"no checkpoint can be written ({one_line(error)}); the run goes on without")
        self._last = time.monotonic()
        least = _seconds()
        self._pause = max(least, _SHARE * (self._last - started)) if least else 0.0

    def _write(self, snapshot: Snapshot, facts: Mapping[str, Any]) -> None:
        content = {
            "identity": self.identity,
            "facts": dict(facts),
            "epochs": [_epoch_row(report) for report in snapshot.epochs],
            "portions": snapshot.portions,
        }
        text = json.dumps(content)
        metadata = {"content": text, "sha256": _digest(text, snapshot.tensors)}
        with atomic_path(self.path) as temporary:
            # Not its save_file, which writes to a file of its own beside: a kill would leave that behind.
            temporary.write_bytes(save(dict(snapshot.tensors), metadata))

    def _parse(self, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Progress:
        text = metadata["content"]
        if metadata["sha256"] != _digest(text, tensors):
            raise ValueError("it is damaged")
        content = json.loads(text)
        for name, value in self.identity.items():
            if content["identity"].get(name) != value:
                raise ValueError(f"its {name} is {content['identity'].get(name)!r}, not {value!r}")
        epochs = tuple(_epoch_report(row) for row in content["epochs"])
        if not epochs:
            raise ValueError("no epoch is in it")
        train, evaluation = content["portions"]
        return Progress(Snapshot(tensors, epochs, (train, evaluation)), content["facts"])


def _load(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as stream:
        return dict(stream.metadata() or {}), {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(f"{weights_sha256(tensors)}\0{text}".encode()).hexdigest()


def _epoch_row(report: EpochReport) -> dict[str, Any]:
    # Predictions are those of the last epoch, which is never in a checkpoint.
    scores = None if report.evaluation is None else [report.evaluation.loss, report.evaluation.accuracy]
    names = [field.name for field in dataclasses.fields(report) if field.name != "evaluation"]
    return {name: getattr(report, name) for name in names} | {"evaluation": scores}


def _epoch_report(row: dict[str, Any]) -> EpochReport:
    if row["evaluation"] is None:
        return EpochReport(**row)
    loss, accuracy = row["evaluation"]
    return EpochReport(**{**row, "evaluation": Evaluation(loss, accuracy, torch.empty(0), torch.empty(0))})


def _seconds() -> float:
    """Return the least time between two checkpoints of a run; 0 asks for one after every epoch, whatever it costs."""
    text = os.environ.get(_SECONDS, "10")
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{_SECONDS}={text!r} is not a number of seconds") from None
