"""Reading checkpoints without running anything in them, and building the backbone that fits one."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from shipbench.errors import InputError

_WRAPPERS = ("model", "state_dict", "model_state_dict")
# Trained weights hardly compress; a file of zeros does.
_MOST_PACKED = 100


def read_state_dict(source: Mapping[str, Any] | str | Path) -> dict[str, Tensor]:
    """Return a state dict from one in memory, a ``.safetensors`` file, or a ``.pth`` / ``.pt`` file.

    Pickled files are read with weights only: anything but tensors in plain containers raises ``InputError``.
    """
    content = _read_file(Path(source)) if isinstance(source, (str, Path)) else dict(source)
    for wrapper in _WRAPPERS:
        inner = content.get(wrapper)
        if isinstance(inner, Mapping):
            content = dict(inner)
            break
    where = f" in {source}" if isinstance(source, (str, Path)) else ""
    tensors = {str(key).removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"found no weights{where}; expected a state dict of tensors")
    for key, value in tensors.items():
        if not _holds_weights(value):
            raise InputError(f"{key}{where} is not a dense tensor of floating-point numbers, as weights are")
    return tensors


def _holds_weights(value: Tensor) -> bool:
    dense = value.layout is torch.strided and not value.is_meta and value.is_floating_point()
    # One number that is expanded to any size would be written out when it is resampled.
    return dense and value.untyped_storage().nbytes() >= value.numel() * value.element_size()


def members_of_zip(path: Path) -> list[str]:
    """Return the names in a checkpoint that is a zip file; raises ``InputError`` for one that would fill the memory."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    size = sum(member.file_size for member in members)
    if size > _MOST_PACKED * path.stat().st_size:
        raise InputError(f"checkpoint {path} would unpack to {size} bytes; weights cannot be packed so tightly")
    return [member.filename for member in members]


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"checkpoint {path} does not exist or is not a file")
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if zipfile.is_zipfile(path):
            members_of_zip(path)
        with warnings.catch_warnings():
            # What torch thinks of odd contents is for its developers; those that are refused get a sentence below.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError:
        raise InputError(f"checkpoint {path} holds more than weights, or is no checkpoint; it was not loaded") from None
    except Exception as error:
        raise InputError(f"checkpoint {path} cannot be read: {first_line(error)}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"checkpoint {path} holds a {type(content).__name__}, not a state dict")
    return dict(content)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its kind if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def fuse_qkv(
    state: Mapping[str, Tensor], pattern: str, parts: tuple[str, str, str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Concatenate every block's three projections as timm keeps them; also return the names of those missing.

    ``pattern`` names a projection, with ``{index}``, ``{part}`` and ``{kind}``. Raises ``InputError`` for a block that
    has a fused projection beside separate ones.
    """
    fused, missing = dict(state), []
    prefix = pattern.split("{index}")[0]
    indices = {key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)}
    for index in sorted(indices):
        for kind in ("weight", "bias"):
            target = f"blocks.{index}.attn.qkv.{kind}"
            if target in state:
                raise InputError(f"the checkpoint has the unexpected key {target} beside separate projections")
            names = [pattern.format(index=index, part=part, kind=kind) for part in parts]
            missing += [name for name in names if name not in state]
            present = [fused.pop(name) for name in names if name in state]
            # What is incomplete is refused by the names above; the stand-in only keeps the key from being named twice.
            fused[target] = torch.cat(present) if present else torch.empty(0)
    return fused, missing


def refuse_keys(what: str, missing: Sequence[str], unexpected: Sequence[str]) -> None:
    """Raise ``InputError`` that names the keys that do not fit, if any."""
    parts = [
        f"{label} {', '.join(sorted(keys)[:6])}{f' and {len(keys) - 6} more' if len(keys) > 6 else ''}"
        for label, keys in (("missing", missing), ("unexpected", unexpected))
        if keys
    ]
    if parts:
        raise InputError(f"these are not the weights of {what}: {'; '.join(parts)}")


def load_strictly(
    model: torch.nn.Module, state: Mapping[str, Tensor], what: str, also_missing: Sequence[str] = ()
) -> None:
    """Load a state dict, refusing missing keys, unexpected keys and wrong shapes by name."""
    own = model.state_dict()
    missing = [k for k in own if k not in state] + list(also_missing)
    refuse_keys(what, missing, [k for k in state if k not in own])
    for key, value in state.items():
        if own[key].shape != value.shape:
            raise InputError(
                f"these are not the weights of {what}: {key} is {tuple(value.shape)}, expected {tuple(own[key].shape)}"
            )
    model.load_state_dict(state)


def build_vit(
    state: Mapping[str, Tensor],
    num_heads: int,
    image_size: int,
    patch_size: int,
    what: str,
    also_missing: Sequence[str] = (),
) -> VisionTransformer:
    """Return a plain ViT whose sizes are read off a state dict in timm's naming, with its weights.

    Raises ``InputError`` that names every missing key (``also_missing`` among them) and every unexpected one.
    """
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    sizes = ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")
    unsized = [key for key in sizes if key not in state]
    refuse_keys(what, unsized + list(also_missing) if unsized else [], [])
    width = state[sizes[0]].shape[0]
    if width % num_heads:
        raise InputError(f"the checkpoint's width {width} does not divide into num_heads={num_heads}")
    model = VisionTransformer(
        img_size=image_size,
        patch_size=patch_size,
        embed_dim=width,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=state[sizes[1]].shape[0] / width,
        num_classes=0,
    )
    load_strictly(model, state, what, also_missing)
    return model


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Return one hash of names, types, shapes and values, so equal weights agree whatever file they came in."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
