"""Checkpoints of unfinished runs: one safetensors file per run, replaced atomically, removed when the run ends.

A run resumes only from its own checkpoint (the file holds the run id), under the same code, releases of packages and
kind of device, and only if the hash over the file's content is right. Loading a checkpoint never executes anything in
it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
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
from shipbench.errors import one_line
from shipbench.events import Emitter
from shipbench.runtime.checkpoint_interval import checkpoint_seconds
from shipbench.runtime.files import atomic_path
from shipbench.runtime.version import VERSION, git_commit
from shipbench.training.history import EpochReport, Evaluation
from shipbench.training.snapshot import Snapshot

FORMAT = "shipbench-checkpoint-1"
# Writing checkpoints takes at most about 1/20 of a run's time.
_MINIMUM_RATIO = 20
# What computes an epoch, beside the code: timm the forward pass, Pillow the pixels.
_PACKAGES = ("torch", "timm", "pillow")


@dataclass(frozen=True)
class Progress:
    """A snapshot, with the ``facts`` of its model (``Built.facts``)."""

    snapshot: Snapshot
    facts: Mapping[str, Any]


class Checkpoint:
    """The checkpoint file of the emitter's run, whether or not it exists yet.

    ``releases`` are those of the packages that compute its method, by package; see ``releases_of``.
    """

    def __init__(self, path: Path, device: torch.device, emitter: Emitter, releases: Mapping[str, str]) -> None:
        self.path = path
        self.emitter = emitter
        self.identity = {
            "format": FORMAT,
            "run_id": emitter.run_id,
            "shipbench": VERSION,
            "commit": git_commit(),
            **{package: version(package) for package in _PACKAGES},
            **releases,
            "device": device.type,
        }
        self._pause = checkpoint_seconds()
        self._last = time.monotonic()
        self._writable = True

    def read(self) -> Progress | None:
        """Return the progress of the run, or None without a usable checkpoint; note a resumption or a refusal."""
        if not self.path.exists():
            return None
        try:
            progress = self._parse(*_load(self.path))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self.emitter.note(f"the checkpoint of this run cannot be used ({one_line(error)}); the run starts over")
            return None
        epochs = progress.snapshot.epochs
        self.emitter.note(f"resumes after epoch {len(epochs)} of {epochs[-1].epochs} from its checkpoint")
        return progress

    def offer(self, take: Callable[[], Snapshot], facts: Mapping[str, Any]) -> None:
        """Write a checkpoint unless the last one is too recent; after a failed write, continue without any."""
        started = time.monotonic()
        if not self._writable or started - self._last < self._pause:
            return
        try:
            self._write(take(), facts)
        except (SafetensorError, OSError) as error:
            self._writable = False
            self.emitter.note(f"no checkpoint can be written ({one_line(error)}); the run continues without one")
        self._last = time.monotonic()
        minimum = checkpoint_seconds()
        self._pause = max(minimum, _MINIMUM_RATIO * (self._last - started)) if minimum else 0.0

    def _write(self, snapshot: Snapshot, facts: Mapping[str, Any]) -> None:
        content = {
            "identity": self.identity,
            "facts": dict(facts),
            "epochs": [_epoch_row(report) for report in snapshot.epochs],
            "micro_batches": snapshot.micro_batches,
        }
        text = json.dumps(content)
        metadata = {"content": text, "sha256": _digest(text, snapshot.tensors)}
        with atomic_path(self.path) as temporary:
            # safetensors' save_file would leave a temporary file of its own behind if the process is killed.
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
            raise ValueError("it holds no epoch")
        train, evaluation = content["micro_batches"]
        return Progress(Snapshot(tensors, epochs, (train, evaluation)), content["facts"])


def _load(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as stream:
        tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
        if sys.platform == "win32":
            # They lie in the mapped file, and Windows replaces no such file by the next checkpoint.
            tensors = {key: tensor.clone() for key, tensor in tensors.items()}
        return dict(stream.metadata() or {}), tensors


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(f"{weights_sha256(tensors)}\0{text}".encode()).hexdigest()


def _epoch_row(report: EpochReport) -> dict[str, Any]:
    # Predictions are kept for the last epoch only, which no checkpoint holds.
    scores = None if report.evaluation is None else [report.evaluation.loss, report.evaluation.accuracy]
    return dataclasses.asdict(dataclasses.replace(report, evaluation=None)) | {"evaluation": scores}


def _epoch_report(row: dict[str, Any]) -> EpochReport:
    if row["evaluation"] is None:
        return EpochReport(**row)
    loss, accuracy = row["evaluation"]
    return EpochReport(**{**row, "evaluation": Evaluation(loss, accuracy, torch.empty(0), torch.empty(0))})
