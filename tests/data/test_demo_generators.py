"""Generators: disjoint training and test pictures, balanced classes, labels that match the pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipbench.data.demo.earth import BLOCK, CLIMATES, TILE, cut_tiles, earth_climate, test_tiles, tile_climates
from shipbench.data.demo.photographs import CELL, PATCH, PHOTOGRAPHS, cut_patches, digits, textures
from shipbench.data.demo.types import Pictures, evenly_mixed, shares
from tests.downloads import download_cache

test_tiles.__test__ = False  # "test" refers to the split


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return download_cache(tmp_path_factory)


def unlike(pictures: Pictures, n_train: int) -> bool:
    """Return whether training pictures are distinct and none of them is a test picture."""
    contents = [image.tobytes() for image in pictures.images]
    train = set(contents[:n_train])
    return len(train) == n_train and not train & set(contents[n_train:])


def address_photograph(height: int, width: int) -> np.ndarray:
    """Return a picture in which the smallest pixel of a patch encodes the cell that the patch was cut from."""
    rows, columns = np.indices((height, width))
    cell = rows // CELL * (width // CELL) + columns // CELL
    return (cell * 2 + 100 * ((rows + columns) % 2)).astype(np.uint8)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 1000))
def test_an_even_mix_is_a_permutation_and_spreads_every_class(classes: list[int], seed: int) -> None:
    labels = np.array(classes)
    order = evenly_mixed(labels, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(classes)))
    half = labels[order][: len(classes) // 2]
    for label in set(classes):
        assert abs((half == label).sum() - (labels == label).sum() / 2) <= 0.5 * len(set(classes)) + 1


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.data())
def test_shares_are_as_equal_as_possible(available: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(available)))
    taken = shares(np.array(available), total)
    assert taken.sum() == total
    assert (taken <= np.array(available)).all()
    held_back = taken[taken < np.array(available)]
    assert not len(held_back) or taken.max() - held_back.min() <= 1


def test_shares_refuses_more_than_is_available() -> None:
    with pytest.raises(ValueError, match="5 pictures requested, but only 4 available"):
        shares(np.array([3, 1]), 5)


def test_digits_are_stratified_and_disjoint() -> None:
    pictures = digits(1000, 797)
    assert pictures.images.shape == (1797, 8, 8, 3)
    assert unlike(pictures, 1000)
    for part in (slice(0, 800), slice(800, 1000), slice(1000, 1797)):
        counts = np.bincount(pictures.labels[part, 0], minlength=10)
        assert counts.max() - counts.min() <= 6


def test_digits_are_the_scans_at_full_contrast() -> None:
    from sklearn.datasets import load_digits

    rows, targets = load_digits(return_X_y=True)
    grey = (rows * 255 / 16).round().astype(np.uint8)
    scans = {scan.tobytes(): int(target) for scan, target in zip(grey, targets, strict=True)}
    pictures = digits(50, 0)
    assert [scans[image[..., 0].tobytes()] for image in pictures.images] == pictures.labels[:, 0].tolist()


@pytest.mark.parametrize("parity", [0, 1])
def test_patches_never_leave_the_cells_of_their_colour(parity: int) -> None:
    patches = cut_patches(address_photograph(4 * CELL + 9, 5 * CELL + 30), parity, np.random.default_rng(0))
    assert patches.shape[1:] == (PATCH, PATCH)
    cells = [set(np.unique(np.where(patch >= 100, patch - 100, patch) // 2)) for patch in patches]
    assert all(len(cell) == 1 for cell in cells)
    rows, columns = np.divmod(np.array([cell.pop() for cell in cells]), 5)
    assert ((rows + columns) % 2 == parity).all()
    assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == 10


def test_patches_without_contrast_are_left_out() -> None:
    photograph = address_photograph(2 * CELL, 2 * CELL)
    photograph[:CELL, :CELL] = 77
    patches = cut_patches(photograph, 0, np.random.default_rng(0))
    assert len(patches) == 12
    assert (patches.std(axis=(1, 2)) > 6).all()


def test_textures_cover_every_photograph_in_disjoint_patches(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIPBENCH_CACHE", str(downloads))
    pictures = textures(1000, 1000)
    assert pictures.images.shape == (2000, PATCH, PATCH, 3)
    assert unlike(pictures, 1000)
    for part in (slice(0, 800), slice(800, 1000), slice(1000, 2000)):
        counts = np.bincount(pictures.labels[part, 0], minlength=len(PHOTOGRAPHS))
        assert counts.min() > 0
        assert counts.max() - counts.min() <= 2
    whole = PHOTOGRAPHS[6].grey()
    patch = next(image for image, (label,) in zip(pictures.images, pictures.labels, strict=True) if label == 6)
    windows = np.lib.stride_tricks.sliding_window_view(whole, (PATCH, PATCH))
    assert (windows[..., ::9, ::9] == patch[::9, ::9, 0]).all(axis=(2, 3)).any()


def synthetic_earth(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return imagery whose pixels encode the row and column of their tile, and a map at 2.5 times its resolution."""
    row, column = np.indices((rows, columns))
    tiles = np.stack([row, column, np.zeros_like(row)], axis=-1).astype(np.uint8)
    satellite = tiles.repeat(TILE, axis=0).repeat(TILE, axis=1)
    numbers = np.array([*CLIMATES.values()], np.uint8)
    classes = np.random.default_rng(0).integers(len(numbers), size=(rows, columns))
    return satellite, numbers[classes].repeat(TILE * 5 // 2, axis=0).repeat(TILE * 5 // 2, axis=1)


def test_tiles_carry_the_climate_at_their_place() -> None:
    satellite, climate = synthetic_earth(24, 30)
    pictures = cut_tiles(satellite, climate, 120, 120)
    row, column = pictures.images[:, 0, 0, 0].astype(int), pictures.images[:, 0, 0, 1].astype(int)
    numbers = climate[row * 90 + 45, column * 90 + 45]
    assert [list(CLIMATES.values()).index(number) for number in numbers] == pictures.labels[:, 0].tolist()


def test_no_block_of_tiles_is_in_training_and_in_test() -> None:
    satellite, climate = synthetic_earth(24, 30)
    pictures = cut_tiles(satellite, climate, 120, 120)
    blocks = [tuple(pixel) for pixel in pictures.images[:, 0, 0, :2] // BLOCK]
    assert not set(blocks[:120]) & set(blocks[120:])
    assert len(set(blocks[:120])) > 30


def test_half_of_the_blocks_are_for_test() -> None:
    tiles = test_tiles(75, 150, np.random.default_rng(0))
    assert tiles.shape == (75, 150)
    assert tiles.mean() == pytest.approx(0.5, abs=0.01)
    blocks = tiles.reshape(25, 3, 50, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()


def test_a_tile_needs_half_its_area_under_one_climate() -> None:
    climate = np.full((8, 12), CLIMATES["EF"], np.uint8)
    climate[:4, :2] = CLIMATES["Af"]
    climate[4:, 4:6] = climate[4:, 6:7] = 32
    labels = tile_climates(climate, 2, 3)
    names = [*CLIMATES]
    ice = names.index("EF")
    assert labels[0, 0] in (names.index("Af"), ice)
    assert labels.tolist()[0][1:] == [ice, ice]
    assert labels.tolist()[1] == [ice, -1, ice]


def test_tiles_that_look_alike_are_used_once() -> None:
    satellite, climate = synthetic_earth(24, 30)
    satellite[: 12 * TILE] = 255
    pictures = cut_tiles(satellite, climate, 100, 100)
    assert unlike(pictures, 100)


def test_earth_climate_covers_its_classes_without_overlap(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIPBENCH_CACHE", str(downloads))
    pictures = earth_climate(1000, 1000)
    assert pictures.images.shape == (2000, TILE, TILE, 3)
    assert unlike(pictures, 1000)
    for part in (slice(0, 1000), slice(1000, 2000)):
        counts = np.bincount(pictures.labels[part, 0], minlength=len(CLIMATES))
        assert counts.min() >= 30
        assert counts.max() <= 150
    brightness = [pictures.images[pictures.labels[:, 0] == label].mean() for label in range(len(CLIMATES))]
    names = [*CLIMATES]
    assert brightness[names.index("EF")] > 200
    assert brightness[names.index("BWh")] > brightness[names.index("Af")] + 50
