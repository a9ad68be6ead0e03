"""The boundaries of the hierarchy: exactly at a threshold or an end layer, one step below, and one above."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from shipbench.methods.ship import ShipConfig, build_hierarchy
from shipbench.methods.ship.prompts import attribute_blocks


def chain(*neighbours: float) -> Tensor:
    """Return an affinity in which every block has the given affinity with each earlier block, the last is first."""
    depth = len(neighbours) + 1
    matrix = torch.ones(depth, depth, dtype=torch.float64)
    for block, affinity in enumerate(neighbours, start=1):
        matrix[block, :block] = matrix[:block, block] = affinity
    return matrix


BELOW, ABOVE = math.nextafter(0.5, 0), math.nextafter(0.5, 1)


@pytest.mark.parametrize(("affinity", "levels"), [(BELOW, [0, 1]), (0.5, [0]), (ABOVE, [0])])
def test_a_level_starts_only_below_the_threshold(affinity: float, levels: list[int]) -> None:
    assert build_hierarchy(chain(affinity), 0.5) == levels


@pytest.mark.parametrize("threshold", [1.0, math.nextafter(1, 2), 2.0])
def test_at_1_and_above_equal_blocks_are_levels_too(threshold: float) -> None:
    assert build_hierarchy(chain(1.0, 1.0, 1.0), threshold) == [0, 1, 2, 3]


def test_just_below_1_equal_blocks_share_a_level() -> None:
    below = math.nextafter(1, 0)
    assert build_hierarchy(chain(1.0, 1.0, 1.0), below) == [0]
    assert build_hierarchy(chain(1.0, math.nextafter(below, 0), 1.0), below) == [0, 2]


@pytest.mark.parametrize("threshold", [-1.0, math.nextafter(-1, 0)])
def test_opposite_blocks_share_a_level_at_the_lowest_threshold_alone(threshold: float) -> None:
    assert build_hierarchy(chain(-1.0), threshold) == ([0] if threshold == -1 else [0, 1])


def test_a_block_is_compared_with_the_first_block_of_its_level() -> None:
    """Blocks 1 and 2 are close to each other, but block 2 is not close to block 0."""
    matrix = torch.tensor([[1.0, 0.9, 0.4], [0.9, 1.0, 0.9], [0.4, 0.9, 1.0]])
    assert build_hierarchy(matrix, 0.5) == [0, 2]


def test_the_row_is_the_first_block_of_the_level_and_the_column_the_block() -> None:
    matrix = torch.tensor([[1.0, 0.9], [0.1, 1.0]])
    assert build_hierarchy(matrix, 0.5) == [0]
    assert build_hierarchy(matrix.T, 0.5) == [0, 1]


@pytest.mark.parametrize(
    ("end_layer", "levels"), [(1, [0]), (2, [0]), (3, [0, 2]), (4, [0, 2, 3]), (5, [0, 2, 3]), (None, [0, 2, 3])]
)
@pytest.mark.parametrize("threshold", [0.5, math.nextafter(0.5, 1)])
def test_a_level_that_starts_at_the_end_layer_is_dropped(
    end_layer: int | None, levels: list[int], threshold: float
) -> None:
    assert build_hierarchy(chain(0.9, 0.1, 0.1), threshold, end_layer) == levels


@pytest.mark.parametrize("end_layer", [1, 2, 3, 4, 5])
def test_the_end_layer_drops_levels_at_a_threshold_of_1_too(end_layer: int) -> None:
    assert build_hierarchy(chain(0.9, 0.9, 0.9), 1.0, end_layer) == [0, 1, 2, 3][:end_layer]


def test_one_block_is_one_level() -> None:
    assert build_hierarchy(torch.ones(1, 1), 0.5) == build_hierarchy(torch.ones(1, 1), 1.0) == [0]


@pytest.mark.parametrize(
    ("levels", "count", "blocks"),
    [
        ([0], 2, []),
        ([0, 1], 1, [1]),
        ([0, 1], 2, [1]),
        ([0, 1, 4], 1, [4]),
        ([0, 1, 4], 2, [1, 4]),
        ([0, 1, 4], 3, [1, 4]),
        ([0, 1, 4], 0, []),
    ],
)
def test_attributes_enter_at_the_last_levels_but_never_at_block_0(
    levels: list[int], count: int, blocks: list[int]
) -> None:
    assert attribute_blocks(levels, ShipConfig(attribute_levels=count)) == blocks
    assert attribute_blocks(levels, ShipConfig(attribute_levels=count, attribute_length=0)) == []
    assert attribute_blocks(levels, ShipConfig(attribute_levels=count, attribute_length=1)) == blocks
