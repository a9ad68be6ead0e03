"""State dicts: reading checkpoints without executing their contents, hashing weights, and building a matching ViT."""

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

from shipbench.errors import InputError, one_line
from shipbench.settings import whole_number

_WRAPPERS = ("model", "state_dict", "model_state_dict")
# Trained weights hardly compress: a higher ratio means a file made to fill the memory.
_MAX_COMPRESSION = 100


def read_state_dict(source: Mapping[str, Any] | str | Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict in memory, a ``.safetensors`` file, or a ``.pth`` / ``.pt`` file.

    A wrapper such as ``{"model": ...}`` and the prefix ``module.`` are removed. Pickled files are read with
    ``weights_only``. Raises ``InputError`` for a file that cannot be read or that holds anything else than weights.
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
    # A single number expanded to any size would be materialised when it is resampled.
    return dense and value.untyped_storage().nbytes() >= value.numel() * value.element_size()


def members_of_zip(path: Path) -> list[str]:
    """Return the member names of a zipped checkpoint; raise ``InputError`` if unpacking it would fill the memory."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    size = sum(member.file_size for member in members)
    if size > _MAX_COMPRESSION * path.stat().st_size:
        raise InputError(f"checkpoint {path} would unpack to {size} bytes; real weights do not compress that much")
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
            # torch's warnings about odd contents are for its developers; refused contents raise InputError below.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError:
        raise InputError(f"checkpoint {path} holds more than weights or is no checkpoint; it was not loaded") from None
    except Exception as error:
        raise InputError(f"checkpoint {path} cannot be read: {one_line(error)}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"checkpoint {path} holds a {type(content).__name__}, not a state dict")
    return dict(content)


def fuse_qkv(
    state: Mapping[str, Tensor], pattern: str, parts: tuple[str, str, str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Concatenate the three projections of each block as timm stores them; also return the names of missing ones.

    ``pattern`` is the name of a projection, with ``{index}`` for the block, ``{part}`` for one of ``parts`` (query,
    key, value) and ``{kind}`` for weight or bias. Raises ``InputError`` for a block that also has a fused projection.
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
            # The caller refuses a state with missing names; the empty tensor keeps it from reporting the fused key too.
            fused[target] = torch.cat(present) if present else torch.empty(0)
    return fused, missing


def refuse_keys(what: str, missing: Sequence[str], unexpected: Sequence[str]) -> None:
    """Raise ``InputError`` that lists the missing and the unexpected keys, if there are any."""
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
    """Load a state dict into ``model``.

    Raises ``InputError`` that names missing keys (with ``also_missing``), unexpected keys, or a wrong shape.
    """
    expected = model.state_dict()
    missing = [k for k in expected if k not in state] + list(also_missing)
    refuse_keys(what, missing, [k for k in state if k not in expected])
    for key, value in state.items():
        shapes = tuple(value.shape), tuple(expected[key].shape)
        if shapes[0] != shapes[1]:
            raise InputError(f"these are not the weights of {what}: {key} is {shapes[0]}, expected {shapes[1]}")
    model.load_state_dict(state)


def build_vit(
    state: Mapping[str, Tensor],
    num_heads: int,
    image_size: int,
    patch_size: int,
    what: str,
    also_missing: Sequence[str] = (),
) -> VisionTransformer:
    """Return a plain ViT with the weights of a state dict in timm's naming, which also determines its sizes.

    Raises ``InputError`` that names missing keys (with ``also_missing``), unexpected keys, or a wrong shape.
    """
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    sizes = ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")
    unsized = [key for key in sizes if key not in state]
    refuse_keys(what, unsized + list(also_missing) if unsized else [], [])
    width = state[sizes[0]].shape[0]
    if width % whole_number("num_heads", num_heads, 1):
        raise InputError(f"the checkpoint's width {width} does not divide into num_heads={num_heads}")
    whole_number("patch_size", patch_size, 1), whole_number("image_size", image_size, patch_size)
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
    """Return a hash of names, types, shapes and values: equal weights have equal hashes in every file format."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
