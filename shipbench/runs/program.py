"""Export a run as a ``torch.export`` program, which torch runs without shipbench and timm."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from shipbench.errors import InputError, one_line
from shipbench.results.store import Store
from shipbench.runs.export import Exported, load_exported
from shipbench.runs.finished import checkpoint_to_rebuild, trained_record, weights_of
from shipbench.runtime.files import atomic_path

ABOUT = "about.json"
"""The extra file of a program that describes its images and its classes."""


def export_program(store: Store, run_id: str, target: Path, *, checkpoint: str | None = None) -> Exported:
    """Write a run's model as a program that maps pixels (B, 3, S, S) in [0, 1] to logits (B, classes).

    B is any number of images and S the image size; the program normalises the pixels itself. Its extra file
    ``about.json`` holds ``description_of`` the model. ``checkpoint`` is the file with the backbone's weights, if they
    are not those of its name. Returns the model. Raises ``InputError`` for a run without weights, for a checkpoint that
    is not named, for a model that torch cannot export, and as ``load_exported`` does.
    """
    record = trained_record(store, run_id)
    source = weights_of(store, record)
    exported = load_exported(source, checkpoint=checkpoint_to_rebuild(record, checkpoint))
    try:
        program = _program(exported)
    except Exception as error:
        # Plug-ins bring models of every kind, and torch has as many errors for what it cannot trace.
        raise InputError(
            f"run {run_id} cannot become a program, because torch.export cannot trace {exported.method}: "
            f"{one_line(error, 200)}; export it without --program"
        ) from error
    with atomic_path(target) as temporary, temporary.open("wb") as stream:
        torch.export.save(program, stream, extra_files={ABOUT: json.dumps(description_of(exported))})
    return exported


def description_of(exported: Exported) -> dict[str, object]:
    """Return what a user of a program must know, as JSON values: run, backbone, images and classes."""
    preprocessing = exported.preprocessing
    return {
        "run_id": exported.run_id,
        "method": exported.method,
        "task": exported.task,
        "backbone": exported.backbone,
        "backbone_sha256": exported.backbone_sha256,
        "checkpoint": exported.checkpoint,
        "image_size": preprocessing.image_size,
        "resize": exported.resize,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "class_names": list(exported.class_names),
        "torch_version": torch.__version__,
    }


class _FromPixels(nn.Module):
    """A model with the normalisation of its images in front of it."""

    mean: Tensor
    std: Tensor

    def __init__(self, exported: Exported) -> None:
        super().__init__()
        self.model = exported.model
        preprocessing = exported.preprocessing
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (B, classes) of pixels (B, 3, S, S) in [0, 1]."""
        return self.model((pixels - self.mean) / self.std)


@torch.no_grad()
def _program(exported: Exported) -> torch.export.ExportedProgram:
    size = exported.preprocessing.image_size
    # Sizes of 0 and 1 are constants to the tracer.
    example = torch.zeros(2, 3, size, size)
    images = torch.export.Dim("images", min=1)
    model = _FromPixels(exported).requires_grad_(False).eval()
    return torch.export.export(model, (example,), dynamic_shapes=({0: images},))
