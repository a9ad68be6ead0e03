"""The options of the benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shipbench.backbones import RANDOM

if TYPE_CHECKING:
    import torch


LEVELS = (0, 2, 4, 6, 8, 11)


@dataclass(frozen=True)
class BenchOptions:
    """Options for timing steps: the backbone, the batch, and ``repeats`` timed rounds after one to warm up.

    ``levels`` are the first blocks of the semantic levels for methods with a hierarchy; of the default ones, a backbone
    has those below its number of blocks. ``compiled`` also measures every model under ``torch.compile``, ``merged``
    every method that can be merged as the plain backbone it becomes.
    """

    backbone: str
    checkpoint: str | None
    image_size: int | None
    batch_size: int = 16
    num_classes: int = 100
    repeats: int = 5
    drop_path: float = 0.1
    levels: tuple[int, ...] = LEVELS
    prompt_lengths: tuple[int, ...] = (50,)
    compiled: bool = False
    merged: bool = False


@dataclass(frozen=True)
class EndToEndOptions:
    """Options for timing a whole run on ``train_images`` and ``test_images``; ``overrides`` are its settings.

    The run trains for two epochs and the second is timed; ``epochs`` only scales the estimate for all of VTAB-1k.
    """

    backbone: str
    checkpoint: str | None = RANDOM
    image_size: int | None = None
    batch_size: int = 64
    train_images: int = 1000
    test_images: int = 1000
    epochs: int = 100
    precision: str = "auto"
    device: str = "auto"
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PartOptions:
    """Options of all parts of ``shipbench bench --all``; each part writes one JSON file into ``output``.

    ``model`` describes the backbone and the training batch; ``settings`` are overrides by method name. Training is
    timed in epochs of at least two ``steps``, ``model.repeats`` of them after one to warm up. ``end_to_end`` are the
    training and test images of whole runs; on the CPU, the rate of an evaluation is measured on as many test images.
    """

    model: BenchOptions
    device: torch.device
    output: Path
    methods: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]]
    precisions: tuple[str, ...] = ("bf16", "fp32")
    steps: int = 5
    end_to_end: tuple[int, int] = (1000, 1000)
    stacks: tuple[int, ...] = (1, 4, 8)
