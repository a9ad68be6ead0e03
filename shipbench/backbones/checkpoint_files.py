"""Reading checkpoint files into nested mappings of tensors, without executing anything in them."""

from __future__ import annotations

import argparse
import datetime
import pathlib
import pickle
import re
import types
import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shipbench.backbones.pickled_arrays import PickledArray, PickledDtype, pickled_scalar, reconstruct
from shipbench.backbones.pinned import require_checkpoint
from shipbench.errors import InputError, one_line

# Trained weights hardly compress: a higher ratio means a file made to fill the memory.
_MAX_COMPRESSION = 100
_LFS_POINTER = b"version https://git-lfs"
_SAVE_AGAIN = "torch.save(model.state_dict(), FILE)"


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Return the content of a ``.safetensors``, ``.npz`` or pickled (``.pth``, ``.pt``, ``.ckpt``, ``.bin``) file.

    Pickled files are read with ``weights_only``; beside tensors they may hold harmless types such as
    ``argparse.Namespace``, NumPy arrays and paths. Raises ``InputError`` for a file that cannot be read, that holds any
    other type, or that would fill the memory.
    """
    require_checkpoint(path)
    readers: dict[str, Callable[[Path], Any]] = {".safetensors": _read_safetensors, ".npz": _read_npz}
    try:
        _refuse_placeholders(path)
        content = readers.get(path.suffix.lower(), _read_pickled)(path)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"checkpoint {path} cannot be read: {one_line(error)}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"checkpoint {path} holds a {type(content).__name__}, not a state dict")
    return content


def _refuse_placeholders(path: Path) -> None:
    with path.open("rb") as stream:
        start = stream.read(len(_LFS_POINTER))
    if not start:
        raise InputError(f"checkpoint {path} cannot be read: it is empty")
    if start == _LFS_POINTER:
        raise InputError(f"checkpoint {path} cannot be read: it is a Git LFS pointer; run 'git lfs pull'")


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors.torch import load_file

    return load_file(path)


def _read_npz(path: Path) -> Mapping[str, Any]:
    """Return the tensors of a ``.npz`` file, with the separators of nested names (``/``) replaced by dots."""
    try:
        refuse_memory_bombs(path)
        with np.load(path) as archive:
            if not archive.files:
                raise ValueError("it holds no arrays")
            return {name.replace("/", "."): _as_tensor(archive[name]) for name in archive.files}
    except (OSError, EOFError, ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"checkpoint {path} cannot be read as .npz: {one_line(error)}") from error


def _as_tensor(array: NDArray[Any]) -> Any:
    """Return a tensor with the values of a numeric array, and any other array unchanged."""
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        # NumPy has no bfloat16: JAX stores it as two opaque bytes.
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    if array.dtype.kind not in "fiubc" or array.dtype.char in "gG":
        return array
    # A copy is writable, contiguous and in this machine's byte order, as torch requires.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def refuse_memory_bombs(path: Path) -> None:
    """Raise ``InputError`` if unpacking a zipped checkpoint would fill the memory."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > _MAX_COMPRESSION * path.stat().st_size:
        raise InputError(f"checkpoint {path} would unpack to {size} bytes; real weights do not compress that much")


def _read_pickled(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        refuse_memory_bombs(path)
        _refuse_torchscript(path)
    with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless_types()):
        # torch's warnings about odd contents are for its developers; refused contents raise InputError below.
        warnings.simplefilter("ignore")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise InputError(_pickle_message(path, str(error))) from None


def _pickle_message(path: Path, reason: str) -> str:
    # The second wording is of modules that torch never allows, such as os.
    refused = re.search(r"GLOBAL (\S+) (?:was not an allowed global|whose module \S+ is blocked)", reason)
    if refused is None:
        return (
            f"checkpoint {path} is not a checkpoint that can be read without executing it; save it with {_SAVE_AGAIN}"
        )
    return (
        f"checkpoint {path} was not loaded: it holds more than weights, a {refused[1]}, which might execute code; "
        f"save the weights alone with {_SAVE_AGAIN}"
    )


def _refuse_torchscript(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in members):
        raise InputError(
            f"checkpoint {path} is a TorchScript archive, which holds code; "
            "save its weights alone with torch.save(torch.jit.load(OLD).state_dict(), FILE)"
        )


@cache
def _harmless_types() -> list[Any]:
    """Return types that hold data and run nothing, with the names under which a pickle may refer to them.

    Left out on purpose: types whose constructor can fill the memory from a few bytes, such as ``list`` of ``range``.
    """
    plain = [argparse.Namespace, types.SimpleNamespace, set, frozenset, slice, complex]
    moments = [datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone]
    return [*plain, *moments, *_numpy_parts(), *_paths()]


def _numpy_parts() -> list[tuple[Any, str]]:
    """Return what stands in for NumPy's own classes and functions, under their names."""
    functions = {"_reconstruct": reconstruct, "scalar": pickled_scalar}
    # NumPy 2 renamed the module.
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    named = [(function, f"{module}.{name}") for module in modules for name, function in functions.items()]
    return [(PickledArray, "numpy.ndarray"), (PickledDtype, "numpy.dtype"), *named]


def _paths() -> list[tuple[Any, str]]:
    """Return pure paths under the names of all paths: a Windows path can only be pure elsewhere."""
    pure = {"Posix": pathlib.PurePosixPath, "Windows": pathlib.PureWindowsPath}
    # Python 3.13 pickles paths under another module.
    modules = ("pathlib", "pathlib._local")
    return [
        (path, f"{module}.{kind}{system}Path")
        for module in modules
        for system, path in pure.items()
        for kind in ("", "Pure")
    ]


def flat_tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return every tensor and numeric NumPy array in nested mappings, as tensors, by its dotted name."""
    tensors: dict[str, Tensor] = {}
    _collect(content, "", tensors, depth=8)
    return tensors


def _collect(content: Mapping[Any, Any], prefix: str, tensors: dict[str, Tensor], depth: int) -> None:
    for key, value in content.items():
        item = _as_tensor(value) if isinstance(value, np.ndarray) else value
        if isinstance(item, Tensor):
            tensors[f"{prefix}{key}"] = item
        elif isinstance(item, Mapping) and depth:
            _collect(item, f"{prefix}{key}.", tensors, depth - 1)
