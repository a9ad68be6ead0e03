"""Exported runs, compared with what they predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from shipbench.record import RunRecord
from shipbench.results.loading import load_predictions
from shipbench.runs.export import Exported, load_exported, predict


def images_of(data: Path) -> list[Path]:
    return [data / "dtd" / line.split()[0] for line in (data / "dtd" / "test.txt").read_text().splitlines()]


def probabilities_of(exported: Exported, images: Sequence[Path]) -> Tensor:
    """Return the class probabilities (images, classes) of images that can all be read."""
    answers, unreadable = predict(exported, images)
    assert not unreadable
    return torch.stack([probabilities for _, probabilities in answers])


def assert_predicts(path: Path, record: RunRecord, results: Path, data: Path) -> None:
    probabilities = probabilities_of(load_exported(path, checkpoint="random"), images_of(data))
    stored = load_predictions(results, [record.run_id])
    assert probabilities.argmax(dim=1).tolist() == stored["predicted"].tolist()
    confidence = torch.tensor(stored["confidence"].to_numpy())
    torch.testing.assert_close(probabilities.amax(dim=1), confidence, rtol=1e-4, atol=1e-5)
