"""Export a run as a plain timm model: the adapters merged into the backbone, and the head."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save

from shipbench.backbones.loading import timm_name
from shipbench.errors import InputError
from shipbench.methods import Mergeable, get_method
from shipbench.results.store import Store
from shipbench.runs.export import Exported, load_exported
from shipbench.runs.finished import checkpoint_to_rebuild, trained_record, weights_of
from shipbench.runtime.files import atomic_path


@dataclass(frozen=True)
class MergedModel:
    """A run's model before it was merged, and how to create the timm model; convolutional ones take no size."""

    exported: Exported
    architecture: str
    num_classes: int
    takes_size: bool

    @property
    def image_size(self) -> int:
        """The side of the square input images in pixels."""
        return self.exported.preprocessing.image_size

    def call(self, path: Path) -> str:
        """Return the Python expression that creates the model and loads ``path``, whose suffix is .safetensors."""
        sizes = f"num_classes={self.num_classes}" + (f", img_size={self.image_size}" if self.takes_size else "")
        return f'timm.create_model("{self.architecture}", {sizes}, checkpoint_path={quoted(path)})'


def quoted(path: Path) -> str:
    """Return a path as a string of Python."""
    return json.dumps(str(path), ensure_ascii=False)


def export_merged(store: Store, run_id: str, target: Path, *, checkpoint: str | None = None) -> MergedModel:
    """Write the state of a plain timm model that equals a run's model; return the run's and how to create timm's.

    The metadata of the safetensors file name the architecture, the backbone with its checkpoint, the classes and the
    preprocessing of images.
    ``checkpoint`` is the file with the backbone's weights, if they are not those of its name. Raises ``InputError``
    for a run without weights, for a method that cannot be merged, for a checkpoint that is not named, and as
    ``load_exported`` does.
    """
    record = trained_record(store, run_id)
    source = weights_of(store, record)
    if not get_method(record.method).mergeable:
        raise InputError(
            f"run {run_id} cannot be merged: what {record.method} adds is no change of the backbone's weights; "
            "export it without --merged"
        )
    exported = load_exported(source, checkpoint=checkpoint_to_rebuild(record, checkpoint))
    model, preprocessing = exported.model, exported.preprocessing
    assert isinstance(model, Mergeable)
    state = {name: value.contiguous() for name, value in model.merged_state().items()}
    takes_size = hasattr(model.backbone, "set_input_size")
    merged = MergedModel(exported, timm_name(record.backbone), record.num_classes, takes_size)
    metadata = {
        "format": "pt",
        "run_id": run_id,
        "method": record.method,
        "task": record.task,
        "architecture": merged.architecture,
        "backbone": record.backbone,
        "backbone_sha256": record.backbone_sha256,
        "checkpoint": record.checkpoint,
        "num_classes": str(merged.num_classes),
        "class_names": json.dumps(exported.class_names),
        "image_size": str(merged.image_size),
        "resize": exported.resize,
        "mean": json.dumps(preprocessing.mean),
        "std": json.dumps(preprocessing.std),
    }
    with atomic_path(target) as temporary:
        temporary.write_bytes(save(state, metadata))
    return merged
