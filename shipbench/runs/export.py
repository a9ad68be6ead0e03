"""Export the trained part of a run as one file, and classify images with such a file."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.backbones import RANDOM, Preprocessing, load_backbone, sha256_of
from shipbench.backbones.state_dicts import weights_sha256
from shipbench.errors import InputError, one_line
from shipbench.events import DISCARD
from shipbench.methods import BuildContext, get_method
from shipbench.prompting import evaluating
from shipbench.results.store import EXPORT_FORMAT, Store
from shipbench.runs.finished import trained_record, weights_of
from shipbench.runs.photographs import Unreadable, read_photographs
from shipbench.runtime.console import say
from shipbench.runtime.file_kinds import impostor
from shipbench.runtime.files import atomic_path
from shipbench.runtime.json_text import parse_json
from shipbench.settings import canonical_json, configure
from shipbench.tasks.catalogue import Resize
from shipbench.training.snapshot import weights_to_keep

_SEAL = "sha256"


@dataclass(frozen=True)
class Exported:
    """A trained model in evaluation mode, the preprocessing of its images, and its origin.

    ``class_names`` are in the order of the classes' numbers, or empty if the task has none; ``resize`` is how images
    become squares. ``checkpoint`` names the file of the backbone's weights, as in a record.
    """

    model: nn.Module
    preprocessing: Preprocessing
    run_id: str
    method: str
    task: str
    class_names: tuple[str, ...] = ()
    resize: Resize = "squash"
    backbone: str = ""
    backbone_sha256: str = ""
    checkpoint: str = ""


def export_run(store: Store, run_id: str, target: Path) -> None:
    """Copy the trained part of a run to ``target``; its metadata suffices to rebuild the model.

    Raises ``InputError`` for a run that is unknown, failed, or keeps no weights.
    """
    source = weights_of(store, trained_record(store, run_id))
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def load_exported(path: Path, *, checkpoint: str | None = None) -> Exported:
    """Rebuild the model of an exported file on its backbone.

    ``checkpoint`` is the file with the backbone's weights, if they are not those of its name; a random initialisation
    need not be named. Raises ``InputError`` for a file of another kind, for content that is damaged or has lost its
    seal, and for a backbone whose hash differs from that of the run.
    """
    metadata, tensors = _read(path)
    try:
        exported = _assemble(path, metadata, tensors, checkpoint)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be used: its metadata are damaged ({one_line(error)})") from error
    if metadata != sealed_metadata(metadata, tensors):
        raise InputError(f"{path} cannot be used: its content is not what was written; export the run again")
    return exported


def sealed_metadata(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the metadata of a weights file with a seal: the hash of all other metadata and of the tensors."""
    others = {key: value for key, value in metadata.items() if key != _SEAL}
    content = canonical_json(others) + weights_sha256(tensors)
    return {**others, _SEAL: hashlib.sha256(content.encode()).hexdigest()}


def _assemble(path: Path, metadata: dict[str, str], tensors: dict[str, Tensor], checkpoint: str | None) -> Exported:
    preprocessing = configure(Preprocessing, parse_json(metadata["preprocessing"]))
    backbone = _backbone(path, metadata, checkpoint, preprocessing.image_size)
    model = _rebuild(metadata, backbone)
    if weights_to_keep(model).keys() != tensors.keys():
        raise InputError(
            f"{path} does not hold the weights of method {metadata['method']} as it is installed here; install the "
            "version that wrote the file, or export the run again"
        )
    model.load_state_dict(tensors, strict=False)
    class_names, classes = tuple(parse_json(metadata["class_names"] or "[]")), int(metadata["num_classes"])
    if class_names and len(class_names) != classes:
        raise ValueError(f"they name {len(class_names)} of {classes} classes")
    return Exported(
        model.eval(),
        preprocessing,
        metadata["run_id"],
        metadata["method"],
        metadata["task"],
        class_names,
        "crop" if metadata["resize"] == "crop" else "squash",
        metadata["backbone"],
        metadata["backbone_sha256"],
        metadata.get("checkpoint", ""),
    )


def _backbone(path: Path, metadata: Mapping[str, str], checkpoint: str | None, image_size: int) -> VisionTransformer:
    """Return the backbone that a file was trained on; raise ``InputError`` for other weights."""
    name, sha256, file = metadata["backbone"], metadata["backbone_sha256"], metadata.get("checkpoint", "")
    whole = metadata["weights"] == "full"
    if whole or (checkpoint is None and file == RANDOM):
        # The weights of a whole model replace those of the backbone, which need not be at hand.
        checkpoint = RANDOM
    try:
        backbone: VisionTransformer = load_backbone(name, checkpoint=checkpoint, image_size=image_size)
    except InputError as error:
        if checkpoint is not None or not file:
            raise
        raise InputError(
            f"{path} was trained on the weights in {file}; name that file with --checkpoint (by its name, {error})"
        ) from error
    if not whole and sha256_of(backbone) != sha256:
        right = f"those in {file}" if file and file != RANDOM else file or "the right ones"
        raise InputError(
            f"{path} was trained on weights {sha256[:12]} of {name}, but these are {sha256_of(backbone)[:12]}; "
            f"pass {right} with --checkpoint"
        )
    return backbone


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file")
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = dict(stream.metadata() or {})
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except SafetensorError as error:
        with path.open("rb") as stream:
            clause = _why_unreadable(stream.read(512))
        raise InputError(f"{path} {clause or f'cannot be read: {error}'}") from error
    if "architecture" in metadata:
        raise InputError(
            f"{path} is the plain timm model that 'export --merged' writes, which timm loads; name a file written by "
            "'shipbench export' without --merged"
        )
    if metadata.get("format") != EXPORT_FORMAT:
        raise InputError(f"{path} was not written by 'shipbench export'")
    return metadata, tensors


def _why_unreadable(start: bytes) -> str | None:
    # Programs are zip archives.
    if start.startswith(b"PK\x03\x04"):
        return (
            "is a program or an archive; torch loads the programs that 'export --program' writes: name a file written "
            "by 'shipbench export' without --program"
        )
    return impostor(start, "name a file written by 'shipbench export'")


def _rebuild(metadata: dict[str, str], backbone: VisionTransformer) -> nn.Module:
    method = get_method(metadata["method"])
    context = BuildContext(
        backbone=backbone,
        num_classes=int(metadata["num_classes"]),
        settings=configure(method.settings, parse_json(metadata["settings"])),
        block_features=_no_images,
        say=DISCARD.note,
        known=parse_json(metadata["facts"]),
    )
    built = method.build(context)
    stored, here = (facts.get("peft_version") for facts in (context.known, built.facts))
    if stored != here:
        say(
            f"this model was trained with peft {stored} and is built by peft {here}: what the library draws and does "
            "not store may differ, and with it the predictions"
        )
    return built.model


def _no_images(kind: str) -> Tensor:
    raise InputError(f"this file lacks what its method computed from the training images ({kind} features)")


@torch.no_grad()
def predict(exported: Exported, images: Sequence[Path]) -> tuple[list[tuple[Path, Tensor]], list[Unreadable]]:
    """Return the class probabilities (classes) of every photograph that can be read, and the images that cannot."""
    answers, unreadable = [], []
    with evaluating(exported.model):
        for path, square in read_photographs(images, exported.preprocessing.image_size, exported.resize):
            if isinstance(square, Unreadable):
                unreadable.append(square)
            else:
                answers.append((path, _probabilities(exported, square)))
    return answers, unreadable


def _probabilities(exported: Exported, square: NDArray[np.uint8]) -> Tensor:
    """Return the class probabilities (classes) of one photograph (H, W, 3)."""
    preprocessing = exported.preprocessing
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    pixels = torch.from_numpy(square.copy()).permute(2, 0, 1).unsqueeze(0).float() / 255
    probabilities: Tensor = exported.model((pixels - mean) / std).softmax(dim=1)[0]
    return probabilities
