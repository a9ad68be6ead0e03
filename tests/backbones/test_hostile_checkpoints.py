"""Damaged, deceptive or memory-filling checkpoints are refused in one sentence."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from shipbench.backbones import load_backbone
from shipbench.backbones.checkpoint_files import read_checkpoint
from shipbench.backbones.state_dicts import read_state_dict
from shipbench.errors import InputError
from tests.forks import start_fork

Weights = dict[str, torch.Tensor]
POSITIONS = "pos_embed"


@pytest.fixture(scope="module")
def state() -> Weights:
    torch.manual_seed(5)
    return timm.create_model("test_vit", num_classes=0).state_dict()


def refused(path: Path, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_backbone("test_vit", checkpoint=path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda positions: torch.zeros(1).expand(1, 1 + 40_000 * 40_000, 64),
        lambda positions: positions.to("meta"),
        lambda positions: positions.to_sparse(),
        lambda positions: positions.to(torch.complex64),
        lambda positions: positions.to(torch.int64),
    ],
    ids=["expanded to any size", "without data", "sparse", "complex", "whole numbers"],
)
@pytest.mark.filterwarnings("error")
def test_tensors_that_are_not_weights(
    tmp_path: Path, state: Weights, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    torch.save(state | {POSITIONS: change(state[POSITIONS])}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "pos_embed in .* is not a dense tensor of floating-point numbers")


def test_half_precision_weights_are_accepted(tmp_path: Path, state: Weights) -> None:
    torch.save({key: value.half() for key, value in state.items()}, tmp_path / "w.pth")
    assert load_backbone("test_vit", checkpoint=tmp_path / "w.pth").pos_embed.dtype == torch.float32


def test_keys_that_are_not_strings(tmp_path: Path) -> None:
    torch.save({1: torch.zeros(2)}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "unexpected 1")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
@pytest.mark.parametrize("content", [b"", b"text\n", b"PK\x05\x06" + bytes(18), pickle.dumps({"a": 1}, protocol=4)])
@pytest.mark.filterwarnings("error")
def test_files_that_are_not_checkpoints(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    refused(path, "cannot be read|no checkpoint|not a checkpoint|does not fit")


def google_npz(path: Path) -> bytes:
    """Write a file with the names that the loader checks first, and return its bytes."""
    blocks = {f"Transformer/encoderblock_{index}/x": np.zeros(2) for index in range(6)}
    np.savez(path, **{"embedding/kernel": np.zeros((16, 16, 3, 64))}, **blocks)
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["end", "half", "byte"])
def test_damaged_npz(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "w.npz"
    content = google_npz(path)
    changed = content[:3000] + bytes([content[3000] ^ 1]) + content[3001:]
    path.write_bytes({"end": content[:-40], "half": content[: len(content) // 2], "byte": changed}[damage])
    refused(path, "cannot be read as .npz|does not fit")


def test_an_array_renamed_to_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.zeros(3))
    (tmp_path / "w.npy").rename(tmp_path / "w.npz")
    refused(tmp_path / "w.npz", "cannot be read as .npz")


def zeros_npy(size: int) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (size // 4,)})
    return stream.getvalue() + bytes(size)


@pytest.mark.parametrize("name", ["w.npz", "w.pth"])
def test_a_file_that_would_fill_the_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("embedding/kernel.npy", zeros_npy(4_000_000))
    refused(path, "would unpack to 4000128 bytes")


def test_suffixes_in_capitals(tmp_path: Path, state: Weights) -> None:
    from safetensors.torch import save_file

    save_file(state, tmp_path / "W.SAFETENSORS")
    assert read_state_dict(tmp_path / "W.SAFETENSORS").keys() == state.keys()


class Forged:
    """A pickled call of a function, with a state, as only an attacker writes it."""

    def __init__(self, function: object, arguments: tuple[object, ...], state: object = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.parts


def forged_dtype(code: str, *rest: object) -> Forged:
    return Forged(np.dtype, (code, False, True), (3, "|", None, *rest))


# NumPy would take these bytes for the address of an object.
ADDRESS = b"A" * 8
REFUSED = 3
OBJECT = ("O8", None, None, -1, -1, 0)
RECORD = ("V8", ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
NEW_ARRAY, NEW_SCALAR = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]


def read_extra(path: Path) -> None:
    try:
        print(read_checkpoint(path)["extra"])
    except InputError:
        os._exit(REFUSED)


@pytest.mark.parametrize(
    "forged",
    [
        lambda: Forged(NEW_SCALAR, (forged_dtype(*OBJECT), ADDRESS)),
        lambda: Forged(NEW_ARRAY, (np.ndarray, (0,), b"b"), (1, (1,), forged_dtype(*OBJECT), False, ADDRESS)),
        lambda: Forged(NEW_ARRAY, (np.ndarray, (0,), b"b"), (1, (1,), forged_dtype(*RECORD), False, ADDRESS)),
        lambda: Forged(np.ndarray, ((1,), "O", ADDRESS)),
    ],
    ids=["number", "array", "array of records", "array on a buffer"],
)
def test_bytes_of_a_file_never_become_addresses(tmp_path: Path, state: Weights, forged: Callable[[], Forged]) -> None:
    torch.save({"model": state, "extra": forged()}, tmp_path / "w.pth")
    # In a process of its own, because the address would end this one.
    process = start_fork(read_extra, tmp_path / "w.pth")
    process.join()
    assert process.exitcode == REFUSED


def test_arrays_keep_their_values(tmp_path: Path) -> None:
    arrays = {
        "big-endian": np.arange(6, dtype=">f4").reshape(2, 3),
        "by columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "texts": np.array(["ant", "bee"]),
        "objects": np.array([1, "a"], dtype=object),
        "switches": np.array([True, False]),
        "bytes": np.array([b"ab", b""]),
        "halves": np.float16([0.5]),
    }
    scalars = [np.float32(0.5), np.int64(-3), np.bool_(True), np.str_("é"), np.complex64(1j)]
    torch.save({**arrays, "scalars": scalars}, tmp_path / "w.pth")
    content = read_checkpoint(tmp_path / "w.pth")
    for name, array in arrays.items():
        np.testing.assert_array_equal(content[name], pickle.loads(pickle.dumps(array)), strict=True)
    assert [(type(value), value) for value in content["scalars"]] == [(type(value), value) for value in scalars]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224.nosuchtag", "vit_tiny_patch16_224..", ""])
def test_names_unknown_to_timm(name: str) -> None:
    with pytest.raises(InputError, match="unknown backbone"):
        load_backbone(name, checkpoint="random")


@pytest.mark.parametrize("size", [160_000, 16 * 10**30])
def test_images_of_absurd_sizes(size: int) -> None:
    with pytest.raises(InputError, match="more than 4096 pixels"):
        load_backbone("test_vit", checkpoint="random", image_size=size)
