"""State dicts: reading the weights in a checkpoint, checking and hashing them, and building a matching ViT."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from shipbench.backbones.checkpoint_files import flat_tensors, read_checkpoint
from shipbench.backbones.layouts import BACKBONES, TIMM, Layout, Selection, select
from shipbench.backbones.pinned import check_image_size
from shipbench.counts import named_few
from shipbench.errors import InputError
from shipbench.runtime.console import say
from shipbench.settings import whole_number


def read_state_dict(source: Mapping[str, Any] | str | Path, layouts: Sequence[Layout] = BACKBONES) -> dict[str, Tensor]:
    """Return the tensors of a state dict in memory or in a ``.safetensors``, ``.npz``, ``.pth`` or ``.pt`` file.

    Wrappers such as ``{"model": ...}`` and prefixes such as ``module.`` are removed, in any nesting. Of several sets of
    weights, averaged ones come first, as in timm's loader, and a line says so. Names stay those of the layout. Nothing
    in a file is executed. Raises ``InputError`` for a file that cannot be read or holds no tensors.
    """
    selection = read_selection(source, layouts)
    if selection.others:
        say(selection.choice(Path(source).name if isinstance(source, (str, Path)) else "state dict"))
    return selection.weights


def read_selection(source: Mapping[str, Any] | str | Path, layouts: Sequence[Layout] = BACKBONES) -> Selection:
    """Return the set of weights of ``read_state_dict`` with its layout; timm's layout and all tensors if none fits."""
    where = where_of(source)
    content = read_checkpoint(Path(source)) if isinstance(source, (str, Path)) else source
    tensors = flat_tensors(content)
    if not tensors:
        raise InputError(f"found no weights{where}; expected a state dict of tensors")
    return select(tensors, layouts, where) or Selection(TIMM, "", tensors, recognised=False)


def where_of(source: Mapping[str, Any] | str | Path) -> str:
    """Return `` in FILE`` for messages about a file, or an empty string for a state dict in memory."""
    return f" in {source}" if isinstance(source, (str, Path)) else ""


def holds_weights(value: Tensor) -> bool:
    """Return whether a tensor is dense, has floating-point numbers, and stores each of them."""
    return value.is_floating_point() and _stores_every_number(value)


def _stores_every_number(value: Tensor) -> bool:
    dense = value.layout is torch.strided and not value.is_meta
    # A single number expanded to any size would be materialised when it is resampled.
    return dense and value.untyped_storage().nbytes() >= value.numel() * value.element_size()


def fills(value: Tensor, expected: Tensor | None) -> bool:
    """Return whether a tensor holds weights, or numbers for a buffer of whole ones, as batch norms count batches."""
    counts = expected is not None and not expected.is_floating_point() and not value.is_complex()
    return holds_weights(value) or (counts and _stores_every_number(value))


def refuse_unusable(unusable: Iterable[str], missing: Iterable[str], where: str) -> None:
    """Raise ``InputError`` that names the first of the ``unusable`` tensors that a model misses."""
    lacking = set(missing)
    for key in unusable:
        if key in lacking:
            raise InputError(f"{key}{where} is not a dense tensor of floating-point numbers, as weights are")


def require_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Raise ``InputError`` that names the first tensor with a value that float32 cannot hold as a finite number."""
    for key, value in state.items():
        wrong = int((~value.float().isfinite()).sum())
        if wrong:
            raise InputError(
                f"{key}{where} has {wrong} of {value.numel()} values that are NaN or infinite; use intact weights"
            )


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
        f"{label} {named_few(sorted(keys), 6)}"
        for label, keys in (("missing", missing), ("unexpected", unexpected))
        if keys
    ]
    if parts:
        raise InputError(f"these are not the weights of {what}: {'; '.join(parts)}")


def load_strictly(
    model: torch.nn.Module,
    state: Mapping[str, Tensor],
    what: str,
    where: str = "",
    also_missing: Sequence[str] = (),
) -> None:
    """Load a state dict into ``model``.

    Raises ``InputError`` that names missing keys (with ``also_missing``), unexpected keys, a wrong shape, or a tensor
    that holds no finite weights; ``where`` completes the message with the file.
    """
    expected = model.state_dict()
    usable = {key: value for key, value in state.items() if fills(value, expected.get(key))}
    missing = [key for key in expected if key not in usable] + list(also_missing)
    refuse_unusable(state.keys() - usable.keys(), missing, where)
    refuse_keys(what, missing, [key for key in state if key not in expected])
    refuse_shapes(what, state, expected)
    require_finite(state, where)
    model.load_state_dict(state)


def refuse_shapes(what: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise ``InputError`` that names the first tensor whose shape is not the expected one."""
    for key, value in state.items():
        shapes = tuple(value.shape), tuple(expected[key].shape)
        if shapes[0] != shapes[1]:
            raise InputError(f"these are not the weights of {what}: {key} is {shapes[0]}, expected {shapes[1]}")


def require_dimensions(state: Mapping[str, Tensor], dimensions: Mapping[str, int], what: str, where: str = "") -> None:
    """Raise ``InputError`` unless every named tensor is non-empty, finite and has its number of ``dimensions``."""
    named = {key: state[key] for key in dimensions if key in state}
    refuse_unusable([key for key, value in named.items() if not holds_weights(value)], named, where)
    for key, value in named.items():
        problem = "" if value.numel() else "which is empty"
        if value.ndim != dimensions[key]:
            problem = f"expected {dimensions[key]} dimensions"
        if problem:
            raise InputError(f"these are not the weights of {what}: {key} is {tuple(value.shape)}, {problem}")
    require_finite(named, where)


def build_vit(
    state: Mapping[str, Tensor],
    num_heads: int,
    image_size: int,
    patch_size: int,
    what: str,
    where: str = "",
    also_missing: Sequence[str] = (),
) -> VisionTransformer:
    """Return a plain ViT with the weights of a state dict in timm's naming, which also determines its sizes.

    Raises ``InputError`` that names missing keys (with ``also_missing``), unexpected keys, a wrong shape, a tensor that
    holds no finite weights, or a size that is not possible; ``where`` completes the message with the file.
    """
    dimensions = {"patch_embed.proj.weight": 4, "blocks.0.mlp.fc1.weight": 2}
    unsized = [key for key in dimensions if key not in state]
    refuse_keys(what, unsized + list(also_missing) if unsized else [], [])
    require_dimensions(state, dimensions, what, where)
    width, hidden = (state[key].shape[0] for key in dimensions)
    _check_sizes(width, num_heads, image_size, patch_size)
    model = VisionTransformer(
        img_size=image_size,
        patch_size=patch_size,
        embed_dim=width,
        depth=len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
        num_heads=num_heads,
        mlp_ratio=hidden / width,
        num_classes=0,
    )
    load_strictly(model, state, what, where, also_missing)
    return model


def _check_sizes(width: int, num_heads: int, image_size: int, patch_size: int) -> None:
    if width % whole_number("num_heads", num_heads, 1):
        raise InputError(f"the checkpoint's width {width} does not divide into num_heads={num_heads}")
    least = whole_number("patch_size", patch_size, 1)
    check_image_size(whole_number("image_size", image_size, least), least, "the checkpoint")


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Return a hash of names, types, shapes and values: equal weights have equal hashes in every file format."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
