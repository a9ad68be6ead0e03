"""The figures of an explanation: every value in its cell, every cell under its title."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shipbench.explaining.figures import (
    ExplainedImage,
    block_figure,
    explained_in_numbers,
    feature_colours,
    montage,
    prompt_figure,
    write_figure,
)
from shipbench.explaining.reading import BlockView

ROWS, COLUMNS = GRID = (2, 3)
LEVELS = [0, 1]


def views(seed: int, shares: Sequence[float] = (), guiding: Sequence[int] | None = None) -> list[BlockView]:
    """Return two blocks; ``shares`` are those of shared prompts, and ``guiding`` is read after the first block."""
    draws = torch.Generator().manual_seed(seed)
    maps = [(torch.rand(1, ROWS * COLUMNS, generator=draws), torch.randn(1, 6, 8, generator=draws)) for _ in range(2)]
    prompts = [{"independent": torch.tensor([0.05]), "shared": torch.tensor([share])} for share in shares] or [{}, {}]
    chosen = [None if guiding is None else torch.tensor([guiding]), None]
    return [BlockView(*pair, *rest) for pair, *rest in zip(maps, prompts, chosen, strict=True)]


def explained(name: str, right: bool, seed: int, shares: Sequence[float] = (0.1, 0.3)) -> ExplainedImage:
    """Return an image of 4 x 6 pixels, whose patches are 2 x 2; the last patch of the first row guides attributes."""
    pixels = np.random.default_rng(seed).integers(0, 200, (4, 6, 3)).astype(np.uint8)
    adapted = views(seed + 1, shares, guiding=[2, -1])
    return ExplainedImage(name, f"class {seed}", right, 1, 0.5, pixels, GRID, views(seed), adapted)


def cells_of(figure: Figure, columns: int) -> list[list[Axes]]:
    axes = figure.axes
    return [axes[start : start + columns] for start in range(0, len(axes), columns)]


def shown(axes: Axes) -> np.ndarray:
    """Return what was drawn last in a cell."""
    return np.asarray(axes.images[-1].get_array())


def test_the_blocks_of_an_image_stand_in_columns_frozen_above_the_run() -> None:
    image = explained("a", True, 0)
    cells = cells_of(block_figure(image, "SHIP", LEVELS), 4)
    assert [row[1].texts[0].get_text() for row in cells] == [
        *("frozen\nattention of CLS", "SHIP\nattention of CLS", "frozen\nfeatures", "SHIP\nfeatures"),
        "patches that\nguide attributes",
    ]
    assert [cell.get_title() for cell in cells[0][2:]] == ["block 1\nlevel 1", "block 2\nlevel 2"]
    assert [cell.get_xlabel() for cell in cells[1][2:]] == ["prompts 15 %", "prompts 35 %"]
    for block in range(2):
        frozen, adapted = image.frozen[block], image.adapted[block]
        for row, view in zip(cells[:2], (frozen, adapted), strict=True):
            assert np.allclose(shown(row[block + 2]), view.attention.view(GRID).numpy())
        colours = feature_colours([frozen.patches[0], adapted.patches[0]])
        for row, each in zip(cells[2:4], colours, strict=True):
            assert np.allclose(shown(row[block + 2]), each.reshape(*GRID, 3))
    guides = shown(cells[4][2])
    assert (guides[:2, 4:] == image.pixels[:2, 4:]).all()
    assert guides[2:].min() > 185
    assert guides[:, :4].min() > 185
    assert not cells[4][3].images


def test_the_montage_keeps_images_beside_their_verdict() -> None:
    images = [explained("a", True, 0), explained("b", False, 3), explained("c", True, 6)]
    cells = cells_of(montage(images, "SHIP"), 10)
    assert (cells[0][0].get_title(), cells[0][5].get_title()) == ("classified correctly", "classified wrongly")
    assert [[row[0].get_xlabel(), row[5].get_xlabel()] for row in cells] == [["class 0", "class 3"], ["class 6", ""]]
    last = images[1].frozen[-1], images[1].adapted[-1]
    assert [cells[0][place].get_title() for place in (6, 7)] == ["frozen\nattention", "SHIP\nattention"]
    for cell, view in zip(cells[0][6:8], last, strict=True):
        assert np.allclose(shown(cell), view.attention.view(GRID).numpy())


def test_a_class_name_with_dollar_signs_is_no_formula(tmp_path: Path) -> None:
    image = replace(explained("a", True, 0), heading=r"$\nothing$ (50 %)")
    write_figure(block_figure(image, "SHIP", LEVELS), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_prompts_are_stacked_bars_of_the_mean_over_images_under_their_level() -> None:
    images = [explained("a", True, 0, (0.1, 0.3)), explained("b", True, 3, (0.2, 0.5))]
    (axes,) = prompt_figure(images, "SHIP", LEVELS).axes
    bars = {
        container.get_label(): [(bar.get_y(), bar.get_height()) for bar in container] for container in axes.containers
    }
    assert bars["independent"] == [(0, pytest.approx(5))] * 2
    assert bars["shared"] == [(pytest.approx(5), pytest.approx(15)), (pytest.approx(5), pytest.approx(40))]
    assert [line.get_xdata()[0] for line in axes.lines] == [0.5, 1.5]
    means = [lines.get_segments()[0] for lines in axes.collections]
    assert [segment[0][1] for segment in means] == [pytest.approx(20), pytest.approx(45)]
    assert [(round(segment[0][0]), round(segment[1][0])) for segment in means] == [(1, 1), (2, 2)]


def test_numbers_name_blocks_and_patches_as_the_figures_do() -> None:
    (numbers,) = explained_in_numbers([explained("a", True, 0)])
    assert numbers["guiding_patches"] == {1: [2, -1]}
    assert numbers["prompt_attention"] == [
        {"independent": pytest.approx(0.05), "shared": pytest.approx(share)} for share in (0.1, 0.3)
    ]


def test_a_matplotlibrc_changes_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = explained("a", True, 1)
    for name in ("plain", "changed"):
        write_figure(montage([image], "title"), tmp_path / f"{name}-montage.png")
        write_figure(prompt_figure([image], "title", LEVELS), tmp_path / f"{name}-prompts.png")
        for key, value in {"image.origin": "lower", "font.size": 20, "axes.facecolor": "red"}.items():
            monkeypatch.setitem(mpl.rcParams, key, value)
    for name in ("montage", "prompts"):
        assert (tmp_path / f"changed-{name}.png").read_bytes() == (tmp_path / f"plain-{name}.png").read_bytes()
    assert mpl.rcParams["font.size"] == 20
