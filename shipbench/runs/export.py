"""Export the trained part of a run as one file, and classify images with such a file."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from shipbench.backbones import RANDOM, Preprocessing, load_backbone, sha256_of
from shipbench.backbones.state_dicts import weights_sha256
from shipbench.data.framing import resize
from shipbench.data.images import decode_photograph
from shipbench.data.signatures import impostor
from shipbench.errors import InputError, one_line
from shipbench.events import DISCARD
from shipbench.methods import BuildContext, get_method
from shipbench.prompting import evaluating
from shipbench.results.store import EXPORT_FORMAT, Store
from shipbench.runs.finished import weights_of
from shipbench.runtime.files import atomic_path
from shipbench.settings import canonical_json, configure
from shipbench.tasks.catalogue import Resize
from shipbench.training.snapshot import weights_to_keep

_SEAL = "sha256"


@dataclass(frozen=True)
class Exported:
    """A trained model in evaluation mode, the preprocessing of its images, and its origin.

    ``class_names`` are in the order of the classes' numbers, or empty if the task has none; ``resize`` is how images
    become squares.
    """

    model: nn.Module
    preprocessing: Preprocessing
    run_id: str
    method: str
    task: str
    class_names: tuple[str, ...] = ()
    resize: Resize = "squash"


def export_run(store: Store, run_id: str, target: Path) -> None:
    """Copy the trained part of a run to ``target``; its metadata suffices to rebuild the model.

    Raises ``InputError`` for a run that is unknown, failed, or keeps no weights.
    """
    source = weights_of(store, run_id)
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def load_exported(path: Path, *, checkpoint: str | None = None) -> Exported:
    """Rebuild the model of an exported file on its backbone.

    ``checkpoint`` is the file with the backbone's weights, if they are not those of its name. Raises ``InputError`` for
    a file of another kind, for content that is damaged or has lost its seal, and for a backbone whose hash differs from
    that of the run.
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
    preprocessing = configure(Preprocessing, json.loads(metadata["preprocessing"]))
    whole = metadata["weights"] == "full"
    # The weights of a whole model replace those of the backbone, which need not be at hand.
    weights = RANDOM if whole else checkpoint
    backbone = load_backbone(metadata["backbone"], checkpoint=weights, image_size=preprocessing.image_size)
    if not whole and sha256_of(backbone) != metadata["backbone_sha256"]:
        raise InputError(
            f"{path} was trained on weights {metadata['backbone_sha256'][:12]} of {metadata['backbone']}, "
            f"but these are {sha256_of(backbone)[:12]}; pass the right ones with --checkpoint"
        )
    model = _rebuild(metadata, backbone)
    if weights_to_keep(model).keys() != tensors.keys():
        raise InputError(f"{path} does not hold the weights of method {metadata['method']} as it is installed here")
    model.load_state_dict(tensors, strict=False)
    return Exported(
        model.eval(),
        preprocessing,
        metadata["run_id"],
        metadata["method"],
        metadata["task"],
        tuple(json.loads(metadata["class_names"] or "[]")),
        "crop" if metadata["resize"] == "crop" else "squash",
    )


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file")
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = dict(stream.metadata() or {})
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except SafetensorError as error:
        with path.open("rb") as stream:
            clause = impostor(stream.read(512), "name a file written by 'shipbench export'")
        raise InputError(f"{path} {clause or f'cannot be read: {error}'}") from error
    if "architecture" in metadata and "run_id" in metadata:
        raise InputError(f"{path} is the merged model of a run, which timm loads; export the run without --merged")
    if metadata.get("format") != EXPORT_FORMAT:
        raise InputError(f"{path} was not written by 'shipbench export'")
    return metadata, tensors


def _rebuild(metadata: dict[str, str], backbone: VisionTransformer) -> nn.Module:
    method = get_method(metadata["method"])
    context = BuildContext(
        backbone=backbone,
        num_classes=int(metadata["num_classes"]),
        settings=configure(method.settings, json.loads(metadata["settings"])),
        block_features=_no_images,
        say=DISCARD.note,
        known=json.loads(metadata["facts"]),
    )
    return method.build(context).model


def _no_images(kind: str) -> Tensor:
    raise InputError(f"this file lacks what its method computed from the training images ({kind} features)")


@torch.no_grad()
def predict(exported: Exported, images: Sequence[Path]) -> Tensor:
    """Return class probabilities (images, classes) of photographs, turned upright as their EXIF orientation says.

    Raises ``InputError`` for an image that cannot be read.
    """
    preprocessing = exported.preprocessing
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    with evaluating(exported.model):
        rows = [exported.model((_pixels(path, exported) - mean) / std).softmax(dim=1) for path in images]
    return torch.cat(rows)


def _pixels(path: Path, exported: Exported) -> Tensor:
    """Return one photograph (1, 3, H, W), scaled to [0, 1]."""
    if not path.is_file():
        raise InputError(f"image {path} {'is a folder' if path.is_dir() else 'does not exist'}; name image files")
    photograph = decode_photograph(path.read_bytes(), path)
    pixels = resize(photograph, exported.preprocessing.image_size, exported.resize)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0).float() / 255
