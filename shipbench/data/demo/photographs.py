"""The natural tasks of the demo suite: scanned digits, and patches of photographs."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipbench.data.demo.types import Pictures, evenly_mixed, shares
from shipbench.runtime.wheels import Asset, Wheel, read_asset

PATCH = 48
CELL = 64

_PATCHES_PER_CELL = 12
_MIN_CONTRAST = 6.0  # standard deviation in grey levels; a patch with less has no recognisable texture
_SEED = 20250117

_SCIKIT_IMAGE = Wheel(
    "scikit-image",
    "0.25.2",
    "scikit_image-0.25.2-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "24cc986e1f4187a12aa319f777b36008764e856e5013666a4a83f8df083c2641",
    15,
)


@dataclass(frozen=True)
class Photograph:
    """One photograph, and the factor by which it is reduced before patches are cut."""

    asset: Asset
    reduce: int

    def grey(self) -> NDArray[np.uint8]:
        """Return the photograph ``(height, width)`` in grey, because its colour would give away the class."""
        from PIL import Image

        with Image.open(io.BytesIO(read_asset(self.asset))) as image:
            return np.asarray(image.convert("L").reduce(self.reduce))


def _photograph(name: str, credit: str, sha256: str, reduce: int = 1) -> Photograph:
    licence = "CC0 or no known copyright restrictions (as scikit-image, BSD-3-Clause, documents it)"
    return Photograph(Asset(_SCIKIT_IMAGE, f"skimage/data/{name}", sha256, licence, credit), reduce)


PHOTOGRAPHS: tuple[Photograph, ...] = (
    _photograph("astronaut.png", "NASA", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
    _photograph("brick.png", "CC0Textures", "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf"),
    _photograph("camera.png", "L. Varshney", "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a"),
    _photograph("chelsea.png", "S. van der Walt", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
    _photograph("coffee.png", "R. Michetti", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
    _photograph("coins.png", "Brooklyn Museum", "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba"),
    _photograph("grass.png", "linolafett", "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89"),
    _photograph("gravel.png", "CC0Textures", "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12"),
    _photograph("hubble_deep_field.jpg", "NASA", "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4", 2),
    _photograph("ihc.png", "CMMI", "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef"),
    _photograph("retina.jpg", "M. Haeggstroem", "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6", 2),
    _photograph("rocket.jpg", "SpaceX", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"),
)


def digits(n_train: int, n_test: int) -> Pictures:
    """Return scikit-learn's 8 x 8 scans of handwritten digits, stratified and labelled by digit."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    scans, labels = bunch.images, bunch.target.astype(np.int64)
    order = evenly_mixed(labels, np.random.default_rng(_SEED))[: n_train + n_test]
    grey = np.rint(scans[order] * (255 / 16)).astype(np.uint8)
    return Pictures(_as_rgb(grey), labels[order][:, None])


def textures(n_train: int, n_test: int) -> Pictures:
    """Return patches of 48 x 48 pixels, labelled by the photograph they are cut from.

    A chessboard of 64-pixel cells divides every photograph: training patches come from its black cells, test patches
    from its white ones.
    """
    rng = np.random.default_rng(_SEED)
    greys = [photograph.grey() for photograph in PHOTOGRAPHS]
    halves = []
    for parity, total in enumerate((n_train, n_test)):
        pools = [cut_patches(grey, parity, rng) for grey in greys]
        counts = shares(np.array([len(pool) for pool in pools]), total)
        labels = np.repeat(np.arange(len(pools), dtype=np.int64), counts)
        patches = np.concatenate([pool[:count] for pool, count in zip(pools, counts, strict=True)])
        order = evenly_mixed(labels, rng)
        halves.append((patches[order], labels[order]))
    images, labels = (np.concatenate(parts) for parts in zip(*halves, strict=True))
    return Pictures(_as_rgb(images), labels[:, None])


def cut_patches(grey: NDArray[np.uint8], parity: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return patches ``(n, 48, 48)`` from one colour of the chessboard (parity 0 or 1), in random order.

    A patch lies inside one cell; patches without contrast (a plain sky) are left out.
    """
    rows, columns = (length // CELL for length in grey.shape)
    patches = []
    for row in range(rows):
        for column in range((row + parity) % 2, columns, 2):
            cell = grey[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
            patches += [patch for patch in _patches_of(cell, rng) if patch.std() >= _MIN_CONTRAST]
    return np.stack(patches)[rng.permutation(len(patches))]


def _patches_of(cell: NDArray[np.uint8], rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    places = CELL - PATCH + 1
    starts = rng.choice(places * places, _PATCHES_PER_CELL, replace=False)
    corners = [divmod(int(start), places) for start in starts]
    return [cell[top : top + PATCH, left : left + PATCH] for top, left in corners]


def _as_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=-1)
